// The guest kernel's command line.

import type { Accelerator } from '../accelerators/accelerator.ts';
import type { MachineSpec } from '../config/machine-spec.ts';

/** For every machine: console on the serial port, no words but warnings, a panic ends the machine, entropy at once. */
const COMMON = 'console=ttyS0 quiet panic=-1 random.trust_cpu=on cryptomgr.notests';

/** The whole line. The caller's words come last, for of two the kernel takes the last; their length was checked. */
export function kernelCommandLine(spec: MachineSpec, accelerator: Accelerator): string {
  const { hostname, vsock } = spec;
  const port = vsock.type === 'vhost' && vsock.port !== undefined ? `microvm.port=${vsock.port}` : '';
  return [COMMON, accelerator.commandLine, `microvm.hostname=${hostname}`, port, spec.commandLine]
    .filter((part) => part !== '')
    .join(' ');
}
