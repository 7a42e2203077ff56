// Stops the processors of a machine, and lets them run on.

import { waitAtMost } from '../host/wait-at-most.ts';
import type { BootedMachine } from './create.ts';
import { END_GRACE_MS, endError } from './exit-error.ts';

type Machine = Pick<BootedMachine, 'machine' | 'patience' | 'exited' | 'ended'>;

/** Returns when no processor runs. Limits of time for what the guest owes stand still from now on. */
export async function pause(vm: Machine): Promise<void> {
  vm.patience.hold();
  try {
    await vm.machine.pause();
  } catch (error) {
    vm.patience.release();
    throw await reasonOf(error, vm, 'before it could be paused');
  }
}

/** The other way round. */
export async function resume(vm: Machine): Promise<void> {
  try {
    await vm.machine.resume();
  } catch (error) {
    throw await reasonOf(error, vm, 'before it could run on');
  }
  vm.patience.release();
}

/** The machine's end, where that is why; each accelerator has other words for it. One that is ending tells in a moment. */
async function reasonOf(error: unknown, vm: Machine, when: string): Promise<unknown> {
  if (!vm.ended.aborted) await waitAtMost(vm.exited, END_GRACE_MS);
  if (!vm.ended.aborted) return error;
  return endError(vm.ended, when);
}
