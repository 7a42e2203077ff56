// The guest kernel's command line.

import type { Accelerator } from '../accelerators/accelerator.ts';
import type { MachineSpec } from '../config/machine-spec.ts';
import { MicroVMError } from '../errors.ts';
import type { Share } from '../virtio-fs/share.ts';

/** For every machine: console on the serial port, no words but warnings, a panic ends the machine, entropy at once. */
const COMMON = 'console=ttyS0 quiet panic=-1 random.trust_cpu=on cryptomgr.notests';

/** The kernel keeps 2048 bytes on x86, the closing NUL included. */
const MAX_BYTES = 2047;

/** The whole line. The caller's words come last, for of two the kernel takes the last; their length was checked. */
export function kernelCommandLine(
  spec: MachineSpec,
  accelerator: Accelerator,
  shares: readonly Pick<Share, 'word'>[] = [],
): string {
  const { hostname, vsock } = spec;
  const port = vsock.type === 'vhost' && vsock.port !== undefined ? `microvm.port=${vsock.port}` : '';
  const words = shares.map(({ word }) => word);
  const line = [COMMON, accelerator.commandLine, `microvm.hostname=${hostname}`, port, ...words, spec.commandLine]
    .filter((part) => part !== '')
    .join(' ');
  if (line.length <= MAX_BYTES) return line;
  throw new MicroVMError(
    'ERR_COMMAND_LINE_TOO_LONG',
    `The kernel command line has ${line.length} bytes; the kernel reads ${MAX_BYTES}`,
    { hint: 'Mounts are told to the guest by it: mount fewer folders, at shorter paths, or shorten cmdline.' },
  );
}
