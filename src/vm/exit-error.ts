// The end of a machine as an error, for those who needed it to run on.

import type { MachineExit } from '../accelerators/accelerator.ts';
import { MicroVMError, type MicroVMErrorCode } from '../errors.ts';

/** Milliseconds that a machine gets to end after a connection to it broke, so that the error can tell why. */
export const END_GRACE_MS = 5_000;

const WORDS: Readonly<Record<MachineExit['reason'], readonly [MicroVMErrorCode, string]>> = {
  'power-off': ['ERR_MACHINE_EXITED', 'The guest switched itself off'],
  reset: ['ERR_MACHINE_EXITED', 'The guest reset itself'],
  panic: ['ERR_GUEST_PANIC', "The guest's kernel panicked"],
  'triple-fault': ['ERR_TRIPLE_FAULT', "The guest's processor shut down by a triple fault"],
  stopped: ['ERR_MACHINE_EXITED', 'The machine was stopped'],
  'internal-error': ['ERR_INTERNAL_ERROR', 'KVM could not run the guest on'],
  failed: ['ERR_MACHINE_FAILED', 'The machine failed'],
};

/** `when` completes the sentence: "while it booted". */
export function exitError(
  { reason, detail }: MachineExit,
  when: string,
  consoleTail: string | undefined,
): MicroVMError {
  const [code, words] = WORDS[reason];
  return new MicroVMError(code, `${words} ${when}${detail === undefined ? '' : `: ${detail}`}`, { consoleTail });
}

/**
 * The same of a machine whose end is the reason of this signal.
 *
 * @param consoleTail - its last words, where somebody has waited for them
 */
export function endError(ended: AbortSignal, when: string, consoleTail?: string): MicroVMError {
  const exit = ended.reason as MachineExit;
  return exitError(exit, when, consoleTail ?? exit.consoleTail);
}
