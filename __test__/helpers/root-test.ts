// Tests that take root on this host. For others they are reported as skipped, with the reason in their titles; with
// MICROVM_TEST_REQUIRE_ALL that is a failure.

import test, { type Implementation } from 'ava';

/** Declares a test that runs alone in its file, as root. */
export function rootTest(title: string, implementation: Implementation<[]>): void {
  if (process.geteuid?.() === 0) test.serial(title, implementation);
  else if (process.env['MICROVM_TEST_REQUIRE_ALL'] === '1') test.serial(title, (t) => t.fail('It takes root'));
  else test.serial.skip(`${title} (not run: it takes root)`, implementation);
}
