// Guests for tests. Where there is no KVM device, the tests that need one are reported as skipped, not as passed.

import { accessSync, constants } from 'node:fs';
import test, { type ExecutionContext, type Implementation } from 'ava';
import { type Guest, makeGuest } from './real-mode-guest-code.ts';

export { CODE, makeGuest, MEMORY } from './real-mode-guest-code.ts';

/** What declares a test. */
type Declare = (title: string, implementation: Implementation<[]>) => void;

/** Declares a test where this user can open KVM, else a skipped one. */
export const testWithKvm: Declare = canOpenKvm() ? test : test.skip;

/** The same for a test that runs alone in its file. */
export const serialTestWithKvm: Declare = canOpenKvm() ? test.serial : test.serial.skip;

/** A guest that is about to run `code`; it is closed when the test ends. */
export function guest(t: ExecutionContext, ...code: number[]): Guest {
  const made = makeGuest(code);
  t.teardown(async () => {
    await made.runner.close();
    await made.vm.close();
    made.memory.close();
    made.kvm.close();
  });
  return made;
}

function canOpenKvm(): boolean {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
