// The machine and the kernel.

import type { Context } from '../context.ts';
import { type Finding, found, together } from '../model.ts';

export function checkPlatform({ host }: Context): Finding {
  const release = host.readText('/proc/sys/kernel/osrelease');
  return together(
    found('platform', 'Platform', 'info', `Linux ${host.arch}`),
    found('kernel', 'Kernel', 'info', release.ok ? release.value.trim() : `unknown (${release.errno})`),
  );
}
