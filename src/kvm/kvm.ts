// The KVM device: where every virtual machine starts.

import type { BindingKvm } from './binding.ts';
import { type ExtensionName, extensionNumber } from './extensions.ts';
import { call, invalid, kvmBinding } from './native.ts';
import type { CpuidEntry } from './state.ts';
import { VirtualMachine } from './virtual-machine.ts';

/** Which KVM device to open. */
export interface KvmOptions {
  /** Path of the device. @default '/dev/kvm' */
  readonly path?: string;
  /** An open descriptor of the device, instead of a path. It is duplicated: the caller closes its own. */
  readonly fd?: number;
}

/** The kernel's KVM subsystem. */
export class Kvm {
  readonly #native: BindingKvm;

  private constructor(native: unknown) {
    this.#native = native as BindingKvm;
  }

  /**
   * Opens the KVM device; the descriptor closes on exec.
   *
   * @throws {MicroVMError} `ERR_KVM_MISSING`, `ERR_KVM_PERMISSION`, `ERR_KVM_NOT_A_DEVICE`, `ERR_KVM_API_VERSION`.
   */
  static open(options: KvmOptions = {}): Kvm {
    const { path, fd } = options;
    if (path !== undefined && fd !== undefined) throw invalid('Give path or fd, not both');
    if (fd !== undefined && (!Number.isInteger(fd) || fd < 0)) throw invalid(`fd must be a descriptor, not ${fd}`);
    const which = { ...(path !== undefined && { path }), ...(fd !== undefined && { fd }) };
    return new Kvm(call(() => kvmBinding().BindingKvm.open(which), path));
  }

  /** Version of the KVM API: 12, for no other can be opened. */
  get apiVersion(): number {
    return call(() => this.#native.apiVersion);
  }

  /** Bytes that the kernel and this process share for each vCPU. */
  get vcpuMmapSize(): number {
    return call(() => this.#native.vcpuMmapSize());
  }

  /** What the kernel says about an extension: 0 is unsupported; else 1, or a number that depends on the extension. */
  checkExtension(extension: ExtensionName | number): number {
    return call(() => this.#native.checkExtension(extensionNumber(extension)));
  }

  /** The CPUID that this host's KVM can give a guest; asked once per process. */
  supportedCpuid(): CpuidEntry[] {
    return call(() => this.#native.supportedCpuid());
  }

  /** Numbers of the model-specific registers that this host's KVM saves and restores. */
  msrIndexList(): number[] {
    return call(() => this.#native.msrIndexList());
  }

  /** Creates a virtual machine without memory and vCPUs. */
  createVm(): VirtualMachine {
    return new VirtualMachine(call(() => this.#native.createVm()));
  }

  /** Closes the device; machines made from it stay. Calling it again does nothing. */
  close(): void {
    this.#native.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
