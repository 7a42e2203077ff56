// Platforms: what runs user-mode code without a guest kernel.

import { loadBinding } from '../native.ts';
import { call, callAsync, invalid, unsigned } from '../native-call.ts';
import { AddressSpace } from './address-space.ts';
import type { BindingPlatform } from './binding.ts';
import { Context } from './context.ts';
import { Memory } from './memory.ts';
import { checkPlatformOptions } from './options.ts';

/** The addon's object behind a platform. */
export let nativePlatform: (platform: unknown) => BindingPlatform;

/** The platforms that there are. */
export const platforms: {
  /** Their names, in alphabetical order. */
  list(): string[];
} = {
  list: () => call(() => loadBinding().ring3Platforms()),
};

/** How a platform is opened. */
export interface PlatformOptions {
  /** Path of its device. @default '/dev/kvm' */
  readonly devicePath?: string | undefined;
  /** Most vCPUs, and so most contexts that run at the same time, 1 to 128. @default one for each processor */
  readonly vcpus?: number | undefined;
}

/** What a platform says of itself. */
export interface PlatformFacts {
  /** Whether address spaces copy to and from programs themselves. */
  readonly supportsAddressSpaceIo: boolean;
  /** Whether a context has to give its address space up before another one can run. */
  readonly cooperativelySchedulesAddressSpaces: boolean;
  /** Whether a switch tells that the program's processor was taken away in between. */
  readonly detectsCpuPreemption: boolean;
  /** Whether it has page tables of its own, so that memory of this process that changes place is not followed. */
  readonly ownsPageTables: boolean;
  /** Whether a memory barrier on all threads of this process is one for programs, too. */
  readonly hasGlobalMemoryBarrier: boolean;
  /** Bytes that one mapping should have at most. */
  readonly mapUnit: number;
  /** First address that programs may use. */
  readonly minUserAddress: bigint;
  /** First address that programs may not use. */
  readonly maxUserAddress: bigint;
  /** What the self-test found out about this host; programs run the same on all of them. */
  readonly host: {
    /** Where SYSCALL leads. */
    readonly syscallEntry: 'ring0' | 'ring3';
    /** When the `out` of a stub counts as done. */
    readonly outCompletion: 'before-exit' | 'at-next-run';
    /** Whether a bare store to a live page table is seen. */
    readonly seesPageTableEdits: boolean;
    /** Whether pages of old page tables can be used for new ones. */
    readonly recyclesPageTables: boolean;
  };
}

/** Which part of a file a memory is. */
export interface FileMemoryOptions {
  /** Bytes from the file's start, a multiple of 4096. @default 0 */
  readonly offset?: bigint | number | undefined;
  /** Bytes, a multiple of 4096. @default all to the file's end, in whole pages */
  readonly length?: bigint | number | undefined;
  /** Whether it can be mapped for writing; what programs write reaches the file. @default false */
  readonly writable?: boolean | undefined;
}

/**
 * A platform: one virtual machine without a kernel. What it makes keeps the machine, which is gone when all of it is
 * closed.
 */
export class Platform implements AsyncDisposable {
  /** What it says of itself. */
  readonly facts: PlatformFacts;
  readonly #native: BindingPlatform;

  private constructor(native: BindingPlatform) {
    this.#native = native;
    const { syscallEntry, outCompletion, seesPageTableEdits, recyclesPageTables, ...own } = call(() => native.facts());
    this.facts = { ...own, host: { syscallEntry, outCompletion, seesPageTableEdits, recyclesPageTables } };
  }

  /**
   * Opens the platform of this name. The first one of a process takes longer: it tests the host.
   *
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS` with every wrong option, and the names that there are; `ERR_KVM_MISSING`,
   *   `ERR_KVM_PERMISSION`, `ERR_KVM_NOT_A_DEVICE` with a hint; `ERR_RING3_UNSUPPORTED` with the reason.
   */
  static async open(name: string, options: PlatformOptions = {}): Promise<Platform> {
    checkPlatformOptions(name, options, platforms.list());
    const { devicePath, vcpus } = options;
    const how = { ...(devicePath !== undefined && { devicePath }), ...(vcpus !== undefined && { vcpus }) };
    return new Platform(await callAsync(() => loadBinding().BindingPlatform.open(name, how), devicePath));
  }

  /** Makes `length` bytes of zeroed memory, a positive multiple of 4096. */
  async newMemory(length: bigint | number): Promise<Memory> {
    const bytes = unsigned(length, 'length');
    return new Memory(await callAsync(() => this.#native.newMemory(bytes)));
  }

  /**
   * Makes memory of a part of a file. Programs that touch what is gone when the file becomes shorter get a bus error.
   *
   * @throws {MicroVMError} `ERR_RING3_FILE` where the file cannot be opened; `ERR_KVM_UNALIGNED`, `ERR_KVM_FAILED` where it
   *   cannot be mapped so.
   */
  async memoryOfFile(path: string, options: FileMemoryOptions = {}): Promise<Memory> {
    if (typeof path !== 'string' || path === '' || path.includes('\0')) throw invalid('path must be text without NUL');
    const { offset = 0, length, writable = false } = options;
    if (typeof writable !== 'boolean') throw invalid('writable must be true or false');
    const file = {
      path,
      offset: unsigned(offset, 'offset'),
      writable,
      ...(length !== undefined && { length: unsigned(length, 'length') }),
    };
    return new Memory(await callAsync(() => this.#native.memoryOfFile(file)));
  }

  /** Makes an empty address space. */
  async newAddressSpace(): Promise<AddressSpace> {
    return new AddressSpace(await callAsync(() => this.#native.newAddressSpace()));
  }

  /** Makes a context whose extended state is that of a reset. */
  newContext(): Context {
    return new Context(call(() => this.#native.newContext()));
  }

  /** Lets go of the machine. Calling it again does nothing. */
  close(): Promise<void> {
    return callAsync(() => this.#native.close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  static {
    nativePlatform = (platform) => {
      if (!(typeof platform === 'object' && platform !== null && #native in platform)) {
        throw invalid('platform must be a Platform');
      }
      return platform.#native;
    };
  }
}
