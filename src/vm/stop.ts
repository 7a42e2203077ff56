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

/** Asks the agent to power off, and kills the machine when it does not. Does nothing when the machine has ended. */
export async function stop(vm: BootedMachine, { timeout = 10_000 }: StopOptions): Promise<MachineExit> {
  const given = new AbortController();
  const timer = setTimeout(() => given.abort(), timeout);
  void vm.exited.then(() => given.abort());
  try {
    await askToPowerOff(vm, timeout, given.signal);
  } finally {
    clearTimeout(timer);
  }
  return vm.kill();
}

/** Returns when the machine has ended, cannot be asked, or `given` is over. */
async function askToPowerOff(vm: BootedMachine, timeoutMs: number, given: AbortSignal): Promise<void> {
  // An end that is known already is told before anything else is tried.
  await Promise.race([vm.exited, Promise.resolve()]);
  if (given.aborted) return;
  try {
    await vm.channel.powerOff({ timeoutMs, signal: given });
  } catch {
    // It cannot be asked: no use in waiting.
    return;
  }
  if (given.aborted) return;
  await new Promise<void>((resolve) => given.addEventListener('abort', () => resolve(), { once: true }));
}
