// Memory that can be mapped into address spaces, read and written by copy.

import { call, callAsync, invalid, unsigned } from '../native-call.ts';
import type { BindingRing3Memory } from './binding.ts';

/** The addon's object behind a memory. */
export let nativeMemory: (memory: unknown) => BindingRing3Memory;

/** Most bytes of one copy, which every release of Node can hold in one buffer. */
const COPY_MAX = 2 ** 32 - 1;

/**
 * Memory of a platform. Address spaces keep what they map, so a memory may be closed while programs use it. Each takes
 * one of about 32,000 slots of the machine: prefer one large memory to many small ones.
 */
export class Memory implements AsyncDisposable {
  /** Its bytes, a multiple of 4096. */
  readonly length: number;
  readonly #native: BindingRing3Memory;

  /** Memories are made by {@link Platform.newMemory} and {@link Platform.memoryOfFile}. */
  constructor(native: unknown) {
    this.#native = native as BindingRing3Memory;
    this.length = Number(call(() => this.#native.length));
  }

  /**
   * A copy of `length` bytes from `offset` (bytes from the memory's start). Programs may change them meanwhile.
   *
   * @throws {MicroVMError} `ERR_RING3_RANGE` where they are not all inside; `ERR_KVM_OUT_OF_BOUNDS` or `ERR_KVM_FAILED`
   *   for the memory of a file, which may have become shorter: read the file instead.
   */
  read(offset: bigint | number, length: number): Uint8Array {
    const from = unsigned(offset, 'offset');
    if (!Number.isInteger(length) || length < 0 || length > COPY_MAX) {
      throw invalid(`length must be a whole number from 0 to ${COPY_MAX}, not ${String(length)}`);
    }
    return call(() => this.#native.read(from, length));
  }

  /**
   * Copies `bytes` to `offset` (bytes from the memory's start).
   *
   * @throws {MicroVMError} as {@link read}; nothing is written then.
   */
  write(offset: bigint | number, bytes: Uint8Array): void {
    const to = unsigned(offset, 'offset');
    if (!(bytes instanceof Uint8Array)) throw invalid('bytes must be a Uint8Array');
    call(() => this.#native.write(to, bytes));
  }

  /** Lets go of the memory, which is gone once nothing maps it. Calling it again does nothing. */
  close(): Promise<void> {
    return callAsync(() => this.#native.close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  static {
    nativeMemory = (memory) => {
      if (!(typeof memory === 'object' && memory !== null && #native in memory)) {
        throw invalid('memory must be a Memory');
      }
      return memory.#native;
    };
  }
}
