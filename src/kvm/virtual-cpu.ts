// One vCPU, as its machine makes it.

import type { BindingVirtualCpu } from './binding.ts';
import { call } from './native.ts';
import { VirtualCpuRunner } from './runner.ts';
import { VirtualCpuState } from './virtual-cpu-state.ts';

/** A vCPU that has been set up, or is about to be; {@link createRunner} makes it run. */
export class VirtualCpu extends VirtualCpuState {
  readonly #native: BindingVirtualCpu;

  /** vCPUs are made by {@link VirtualMachine.createVcpu}. */
  constructor(native: unknown) {
    super(native);
    this.#native = native as BindingVirtualCpu;
  }

  /** Makes the vCPU able to run; once only. Both handles stay good for its state, and closing one closes both. */
  createRunner(): VirtualCpuRunner {
    return new VirtualCpuRunner(
      this.#native,
      call(() => this.#native.makeRunner()),
    );
  }
}
