// Tests of ring 3. Where no platform can be opened, the tests are reported as skipped, with
// the reason in their titles; with MICROVM_TEST_REQUIRE_ALL that is a failure.

import test, { type ExecutionContext, type Implementation } from 'ava';
import { Platform, UserSandbox, type UserSandboxOptions } from '../../src/ring3/index.ts';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { cacheFolder } from '../../src/cache/folder.ts';
import { closeProgram, makeProgram, type Program } from './ring3-program.ts';

export { CODE, DATA } from './ring3-program.ts';

/** What declares a test. */
type Declare = (title: string, implementation: Implementation<[]>) => void;

const unusable = await whyNot();

/** Declares a test where programs can run in ring 3, else a skipped one that says why. */
export const ring3Test: Declare = declare(test, test.skip);

/** The same for a test that runs alone in its file. */
export const serialRing3Test: Declare = declare(test.serial, test.serial.skip);

function declare(run: Declare, skip: (title: string, implementation: Implementation<[]>) => void): Declare {
  return (title, implementation) =>
    unusable === undefined ? run(title, implementation) : skip(`${title} (not run: ${unusable})`, implementation);
}

async function whyNot(): Promise<string | undefined> {
  try {
    const platform = await Platform.open('kvm');
    await platform.close();
    return undefined;
  } catch (error) {
    if (process.env['MICROVM_TEST_REQUIRE_ALL'] === '1') throw error;
    return error instanceof Error ? error.message : String(error);
  }
}

/** The program of these bytes, with a page of data in RDI; it is closed when the test ends. */
export async function program(t: ExecutionContext, ...code: number[]): Promise<Program> {
  const made = await makeProgram(...code);
  t.teardown(() => closeProgram(made));
  return made;
}

const cached = path.join(cacheFolder(), 'tools/busybox-static/busybox');
/** A static program with all that a test could want: the set-up's, or else this machine's. */
export const BUSYBOX: string = existsSync(cached) ? cached : '/bin/busybox';

/** A sandbox that is closed when the test ends. */
export async function sandbox(t: ExecutionContext, options: UserSandboxOptions = {}): Promise<UserSandbox> {
  const box = await UserSandbox.create(options);
  t.teardown(() => box.close());
  return box;
}
