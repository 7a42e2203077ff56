// Programs of a few bytes for ring 3, without the test runner.

import { type AddressSpace, type Context, type Memory, Platform, type Registers } from '../../src/ring3/index.ts';

/** Where a program's code is, and a page that it may write. */
export const CODE = 0x40_0000n;
export const DATA = 0x60_0000n;
const PAGE = 4096;

/** A program that is about to run, in a machine of its own. */
export interface Program {
  readonly platform: Platform;
  readonly memory: Memory;
  readonly space: AddressSpace;
  readonly context: Context;
  readonly start: Partial<Registers>;
}

/** Makes the program of these bytes, with a page of data in RDI. */
export async function makeProgram(...code: number[]): Promise<Program> {
  const platform = await Platform.open('kvm', { vcpus: 2 });
  const memory = await platform.newMemory(2 * PAGE);
  memory.write(0, Uint8Array.from(code));
  const space = await platform.newAddressSpace();
  await space.map({ address: CODE, memory, length: PAGE, protection: { read: true, execute: true } });
  await space.map({ address: DATA, memory, offset: PAGE, protection: { read: true, write: true } });
  return { platform, memory, space, context: platform.newContext(), start: { rip: CODE, rdi: DATA } };
}

export async function closeProgram({ platform, memory, space, context }: Program): Promise<void> {
  await context.close();
  await space.release();
  await memory.close();
  await platform.close();
}
