import type { MachineSpec } from './machine-spec.ts';
import type { MicroVMOptions } from './options.ts';

/** Checks all options at once and fills in the defaults. Throws `ERR_INVALID_OPTIONS` with every problem. Looks at nothing on disk. */
export function normalize(_options: MicroVMOptions = {}): MachineSpec {
  throw new Error('Not written yet');
}
