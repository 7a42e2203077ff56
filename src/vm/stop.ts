// Ends a machine with its guest's consent, or without.

import type { MachineExit } from '../accelerators/accelerator.ts';
import { checkStopOptions } from '../config/stop-options.ts';
import { MicroVMError } from '../errors.ts';
import type { BootedMachine } from './create.ts';

/** How to stop a machine. */
export interface StopOptions {
  /**
   * Milliseconds the guest gets to write back its data and switch itself off; then it is killed.
   * @default 10000
   */
  readonly timeout?: number | undefined;
}

/** What is being stopped: asking a guest that is on its way out once more would only disturb it. */
const stopping = new WeakMap<BootedMachine, Promise<MachineExit>>();

/**
 * Asks the agent to power off, and kills the machine when it does not. Does nothing when the machine has ended; a further
 * call waits for the first, whose timeout counts.
 */
export async function stop(vm: BootedMachine, options: StopOptions = {}): Promise<MachineExit> {
  checkStopOptions(options);
  const { timeout = 10_000 } = options;
  const already = stopping.get(vm);
  if (already) return already;
  const stopped = stopOnce(vm, timeout);
  stopping.set(vm, stopped);
  return stopped;
}

async function stopOnce(vm: BootedMachine, timeout: number): Promise<MachineExit> {
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
  // A paused guest cannot answer. One that is not paused, or whose processors cannot be reached, is asked all the same.
  void vm.machine.resume().catch(() => {});
  // What runs is ended by its owner: it did not end by itself.
  vm.api.close(new MicroVMError('ERR_MACHINE_EXITED', 'The machine was stopped'));
  try {
    await vm.channel.powerOff({ timeoutMs, signal: given });
  } catch {
    // It cannot be asked: no use in waiting.
    return;
  }
  if (given.aborted) return;
  await new Promise<void>((resolve) => given.addEventListener('abort', () => resolve(), { once: true }));
}
