// Interfaces of the kernel that a setting, a filter or a container may withhold, and huge pages.

import type { Context } from '../context.ts';
import type { DoctorHost, InterfaceName } from '../host.ts';
import { type Finding, found, together } from '../model.ts';
import { fieldOf, sizeText } from '../texts.ts';

export function checkKernelInterfaces({ host }: Context): Finding {
  return together(
    tried(host, 'userfaultfd', 'userfaultfd', 'available'),
    tried(host, 'io_uring', 'io_uring', 'available'),
    hugePages(host),
  );
}

function tried(host: DoctorHost, name: InterfaceName, label: string, good: string): Finding {
  const answer = host.tryInterface(name);
  const value =
    answer === undefined ? 'cannot be tried without the addon' : answer.ok ? good : `refused (${answer.errno})`;
  return found(name.replace('_', '-'), label, 'info', value);
}

function hugePages(host: DoctorHost): Finding {
  const memory = host.readText('/proc/meminfo');
  const text = memory.ok ? memory.value : '';
  const free = Number(fieldOf(text, 'HugePages_Free') ?? 0);
  const bytes = Number.parseInt(fieldOf(text, 'Hugepagesize') ?? '0', 10) * 1024;
  const memfd = host.tryInterface('memfd_hugetlb');
  const refused = memfd !== undefined && !memfd.ok ? `, memfd refused (${memfd.errno})` : '';
  const value = bytes === 0 ? 'none in this kernel' : `${free} of ${sizeText(bytes)} free${refused}`;
  return found('huge-pages', 'Huge pages', 'info', value);
}
