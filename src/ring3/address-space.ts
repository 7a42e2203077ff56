// What a program sees of memory: which memory is mapped where.

import { callAsync, invalid, unsigned } from '../native-call.ts';
import type { BindingAddressSpace, BindingProtection } from './binding.ts';
import { type Memory, nativeMemory } from './memory.ts';

/** The addon's object behind an address space. */
export let nativeSpace: (space: unknown) => BindingAddressSpace;

/** What programs may do with a range; what is left out is false. */
export interface Protection {
  /** Processors know no memory that can be written or executed only: either of them makes it readable. */
  readonly read?: boolean | undefined;
  readonly write?: boolean | undefined;
  readonly execute?: boolean | undefined;
}

/** What to map where. */
export interface Mapping {
  /** First address, a multiple of 4096. */
  readonly address: bigint | number;
  readonly memory: Memory;
  /** Bytes from the memory's start, a multiple of 4096. @default 0 */
  readonly offset?: bigint | number | undefined;
  /** Bytes, a multiple of 4096. @default all to the end of the memory */
  readonly length?: bigint | number | undefined;
  readonly protection: Protection;
  /** Allocate the pages now, so that the first access is quick. @default false */
  readonly precommit?: boolean | undefined;
}

/**
 * An address space. Any number of contexts can run in it at the same time.
 *
 * Changes are done in the order of their calls. A change of what was mapped before makes the programs that run in the
 * space stop for a moment; when its promise resolves, none of them sees anything of what was.
 */
export class AddressSpace implements AsyncDisposable {
  readonly #native: BindingAddressSpace;
  /** The change that was asked for last. */
  #last: Promise<unknown> = Promise.resolve();

  /** Address spaces are made by {@link Platform.newAddressSpace}. */
  constructor(native: unknown) {
    this.#native = native as BindingAddressSpace;
  }

  /**
   * Maps a part of a memory, in place of what was there.
   *
   * @throws {MicroVMError} `ERR_RING3_RANGE` where the range or the part is not whole pages, or outside of what there
   *   is; `ERR_INVALID_OPTIONS`, also where the memory is another platform's; `ERR_RING3_CLOSED`.
   */
  async map(mapping: Mapping): Promise<void> {
    if (typeof mapping !== 'object' || mapping === null) throw invalid('map takes an object: { address, memory, … }');
    const { memory, offset = 0, precommit = false } = mapping;
    const native = nativeMemory(memory);
    const from = unsigned(offset, 'offset');
    const { length = BigInt(memory.length) - from } = mapping;
    const what = {
      address: unsigned(mapping.address, 'address'),
      offset: from,
      length: unsigned(length, 'length'),
      protection: whole(mapping.protection),
      precommit: flag(precommit, 'precommit'),
    };
    return this.#inTurn(() => this.#native.map(native, what));
  }

  /** Removes what is mapped in a range; what is not, stays so. Fails as {@link map}. */
  async unmap(address: bigint | number, length: bigint | number): Promise<void> {
    const [from, bytes] = [unsigned(address, 'address'), unsigned(length, 'length')];
    return this.#inTurn(() => this.#native.unmap(from, bytes));
  }

  /** Changes what programs may do with a range, which has to be mapped throughout. Fails as {@link map}. */
  async protect(address: bigint | number, length: bigint | number, protection: Protection): Promise<void> {
    const [from, bytes] = [unsigned(address, 'address'), unsigned(length, 'length')];
    const what = whole(protection);
    return this.#inTurn(() => this.#native.protect(from, bytes, what));
  }

  /**
   * Ends the space, even while programs run in it: their switches fail with `ERR_RING3_CLOSED`. Calling it again does
   * nothing.
   */
  async release(): Promise<void> {
    return this.#inTurn(() => this.#native.release());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }

  #inTurn(change: () => Promise<void>): Promise<void> {
    const before = this.#last;
    const done = callAsync(async () => {
      await before;
      return change();
    });
    // Who asked for it hears of a failure; the next one has its own turn.
    this.#last = done.catch(() => {});
    return done;
  }

  static {
    nativeSpace = (space) => {
      if (!(typeof space === 'object' && space !== null && #native in space)) {
        throw invalid('space must be an AddressSpace');
      }
      return space.#native;
    };
  }
}

function whole(protection: Protection): BindingProtection {
  if (typeof protection !== 'object' || protection === null) {
    throw invalid('protection must be an object: { read, write, execute }');
  }
  const { read = false, write = false, execute = false } = protection;
  return { read: flag(read, 'read'), write: flag(write, 'write'), execute: flag(execute, 'execute') };
}

function flag(value: unknown, name: string): boolean {
  if (typeof value !== 'boolean') throw invalid(`${name} must be true or false, not ${String(value)}`);
  return value;
}
