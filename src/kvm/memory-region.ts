// Host memory for guests, read and written by copy.

import type { BindingMemoryRegion } from './binding.ts';
import { call, invalid, kvmBinding, unsigned } from './native.ts';

/** Size of an ordinary page, in bytes. */
const PAGE_SIZE = 4096;
const HUGE_PAGE_SIZES = { '2MiB': 2 ** 21, '1GiB': 2 ** 30 } as const;

/** The addon's object behind a region. */
export let nativeRegion: (region: unknown) => BindingMemoryRegion;

/** How a memory region of a memfd is made. */
export interface MemfdOptions {
  /** Take pages of this size from the host's hugetlb pool. @default ordinary pages of 4 KiB */
  readonly hugePages?: '2MiB' | '1GiB';
}

/**
 * Host memory that can be mapped into a guest. A slot keeps the memory that it maps, so a region may be closed, or
 * forgotten, while a machine uses it.
 */
export class MemoryRegion {
  /** Bytes of the region. */
  readonly length: number;
  readonly #native: BindingMemoryRegion;

  private constructor(native: unknown) {
    this.#native = native as BindingMemoryRegion;
    this.length = Number(this.#native.length);
  }

  /**
   * Maps `length` bytes of zeroed memory.
   *
   * @throws {MicroVMError} `ERR_KVM_UNALIGNED` where `length` is not a positive multiple of 4096.
   */
  static anonymous(length: bigint | number): MemoryRegion {
    const bytes = unsigned(length, 'length');
    return new MemoryRegion(call(() => kvmBinding().BindingMemoryRegion.anonymous(bytes)));
  }

  /**
   * Maps `length` bytes of zeroed memory that has a file (a memfd), as huge pages need.
   *
   * @throws {MicroVMError} `ERR_KVM_UNALIGNED` where `length` is not a positive multiple of the page size;
   * `ERR_KVM_FAILED` (ENOMEM) where the host has too few huge pages.
   */
  static memfd(length: bigint | number, options: MemfdOptions = {}): MemoryRegion {
    const bytes = unsigned(length, 'length');
    const { hugePages } = options;
    const pageSize = hugePages === undefined ? PAGE_SIZE : HUGE_PAGE_SIZES[hugePages];
    if (pageSize === undefined) throw invalid(`hugePages must be '2MiB' or '1GiB', not ${String(hugePages)}`);
    return new MemoryRegion(call(() => kvmBinding().BindingMemoryRegion.memfd(bytes, pageSize)));
  }

  /**
   * A copy of `length` bytes from `offset` (bytes from the region's start).
   *
   * @throws {MicroVMError} `ERR_KVM_OUT_OF_BOUNDS` where they are not all inside, or are more than 4 GiB.
   */
  read(offset: bigint | number, length: number): Uint8Array {
    const [from, bytes] = [unsigned(offset, 'offset'), unsigned(length, 'length')];
    return call(() => this.#native.read(from, bytes));
  }

  /**
   * Copies `bytes` to `offset` (bytes from the region's start).
   *
   * @throws {MicroVMError} `ERR_KVM_OUT_OF_BOUNDS` where they do not all fit; nothing is written then.
   */
  write(offset: bigint | number, bytes: Uint8Array): void {
    const to = unsigned(offset, 'offset');
    if (!(bytes instanceof Uint8Array)) throw invalid('bytes must be a Uint8Array');
    call(() => this.#native.write(to, bytes));
  }

  /** Lets go of the memory; it is unmapped once no slot maps it. Calling it again does nothing. */
  close(): void {
    this.#native.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  static {
    nativeRegion = (region) => {
      if (!(typeof region === 'object' && region !== null && #native in region)) {
        throw invalid('region must be a MemoryRegion');
      }
      return region.#native;
    };
  }
}
