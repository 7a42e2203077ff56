// One virtual machine: memory slots and vCPUs.

import type { BindingVirtualMachine } from './binding.ts';
import { type ExtensionName, extensionNumber } from './extensions.ts';
import { type MemoryRegion, nativeRegion } from './memory-region.ts';
import { call, callAsync, unsigned } from './native.ts';
import { VirtualCpu } from './virtual-cpu.ts';

const LOG_DIRTY_PAGES = 1;
const READ_ONLY = 2;

/** What a memory slot maps. */
export interface MemorySlot {
  /** Number of the slot; what it mapped before is replaced. */
  readonly slot: number;
  /** Guest physical address, a multiple of 4096. */
  readonly guestAddress: bigint | number;
  /** The memory. */
  readonly region: MemoryRegion;
  /** Guest writes become `mmio-write` exits. @default false */
  readonly readOnly?: boolean;
  /** Let the kernel keep a log of written pages. @default false */
  readonly logDirtyPages?: boolean;
}

/** A virtual machine. */
export class VirtualMachine {
  readonly #native: BindingVirtualMachine;

  /** Machines are made by {@link Kvm.createVm}. */
  constructor(native: unknown) {
    this.#native = native as BindingVirtualMachine;
  }

  /** As {@link Kvm.checkExtension}, for this machine: some extensions depend on its type. */
  checkExtension(extension: ExtensionName | number): number {
    return call(() => this.#native.checkExtension(extensionNumber(extension)));
  }

  /**
   * Creates a vCPU. Number them from 0.
   *
   * @throws {MicroVMError} `ERR_KVM_FAILED`: `EEXIST` where the number is in use, `EINVAL` where it is too high.
   */
  createVcpu(id: number): VirtualCpu {
    return new VirtualCpu(call(() => this.#native.createVcpu(id)));
  }

  /**
   * Maps a memory region into the guest. The machine keeps the memory until the slot is removed or replaced, or the
   * machine and all its vCPUs are closed.
   *
   * @throws {MicroVMError} `ERR_KVM_UNALIGNED`, `ERR_KVM_SLOT_OVERLAP`; the slot is then as before.
   */
  setGuestMemoryRegion(options: MemorySlot): void {
    const { slot, guestAddress, region, readOnly = false, logDirtyPages = false } = options;
    const flags = (readOnly ? READ_ONLY : 0) | (logDirtyPages ? LOG_DIRTY_PAGES : 0);
    const address = unsigned(guestAddress, 'guestAddress');
    call(() => this.#native.setGuestMemoryRegion(slot, flags, address, nativeRegion(region)));
  }

  /** Removes a memory slot from the guest. */
  removeGuestMemoryRegion(slot: number): void {
    call(() => this.#native.removeGuestMemoryRegion(slot));
  }

  /** Closes the machine; its vCPUs keep it open until they are closed too. Calling it again does nothing. */
  close(): Promise<void> {
    return callAsync(() => this.#native.close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Starts to close, without waiting. */
  [Symbol.dispose](): void {
    void this.close();
  }
}
