// Ends a machine with its guest's consent, or without.

import type { MachineExit } from '../accelerators/accelerator.ts';
import type { BootedMachine } from './create.ts';

/** How to stop a machine. */
export interface StopOptions {
  /**
   * Milliseconds the guest gets to write back its data and switch itself off; then it is killed.
   * @default 10000
   */
  readonly timeout?: number | undefined;
}

/** Asks the agent to power off, and kills the machine when it does not. */
export async function stop(vm: BootedMachine, { timeout = 10_000 }: StopOptions): Promise<MachineExit> {
  const deadline = AbortSignal.timeout(timeout);
  const asked = vm.channel.powerOff({ timeoutMs: timeout, signal: deadline }).then(
    () => expired(deadline),
    // It cannot be asked: no use in waiting.
    () => {},
  );
  await Promise.race([vm.exited, asked]);
  await vm.kill();
  return vm.exited;
}

function expired(deadline: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (deadline.aborted) return resolve();
    deadline.addEventListener('abort', () => resolve(), { once: true });
  });
}
