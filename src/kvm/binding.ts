// What the addon exports for this folder (crates/node/src/kvm). Private to the package.

import type { CpuidEntry, DebugRegs, Fpu, Msr, Regs, Sregs, VcpuEvents, Xcr } from './state.ts';

export interface BindingExit {
  readonly reason: string;
  readonly port?: number;
  readonly size?: number;
  readonly count?: number;
  readonly address?: bigint;
  readonly data?: Uint8Array;
  /** Bytes that an answer has; absent where the guest waits for none. */
  readonly answerLength?: number;
  /** Number of an exception, call, register or vector, or the processor's or kernel's reason. */
  readonly number?: bigint;
  /** Suberror, error code, kind or processor. */
  readonly detail?: number;
  readonly flags?: bigint;
  readonly words?: readonly bigint[];
}

export interface BindingKvm {
  readonly apiVersion: number;
  checkExtension(extension: number): number;
  vcpuMmapSize(): number;
  supportedCpuid(): CpuidEntry[];
  msrIndexList(): number[];
  createVm(): BindingVirtualMachine;
  close(): void;
}

export interface BindingVirtualMachine {
  checkExtension(extension: number): number;
  createVcpu(id: number): BindingVirtualCpu;
  setGuestMemoryRegion(slot: number, flags: number, guestAddress: bigint, region: BindingMemoryRegion): void;
  removeGuestMemoryRegion(slot: number): void;
  close(): Promise<void>;
}

export interface BindingMemoryRegion {
  readonly length: bigint;
  read(offset: bigint, length: bigint): Uint8Array;
  write(offset: bigint, bytes: Uint8Array): void;
  close(): void;
}

export interface BindingVirtualCpu {
  readonly id: number;
  getRegs(): Regs;
  setRegs(regs: Regs): void;
  getSregs(): Sregs;
  setSregs(sregs: Sregs): void;
  getFpu(): Fpu;
  setFpu(fpu: Fpu): void;
  getVcpuEvents(): VcpuEvents;
  setVcpuEvents(events: VcpuEvents): void;
  getDebugRegs(): DebugRegs;
  setDebugRegs(debugRegs: DebugRegs): void;
  getXcrs(): Xcr[];
  setXcrs(xcrs: readonly Xcr[]): void;
  getMpState(): number;
  setMpState(state: number): void;
  getXsave(): Uint8Array;
  setXsave(bytes: Uint8Array): void;
  getMsrs(indices: readonly number[]): Msr[];
  setMsrs(msrs: readonly Msr[]): void;
  getCpuid(): CpuidEntry[];
  setCpuid(entries: readonly CpuidEntry[]): void;
  setGuestDebug(control: number, debugRegs: readonly bigint[]): void;
  makeRunner(): BindingVirtualCpuRunner;
  close(): Promise<void>;
}

export interface BindingVirtualCpuRunner {
  run(): Promise<BindingExit>;
  completeExit(): BindingExit;
  answer(bytes: Uint8Array): void;
  interrupt(): void;
  withdrawInterrupt(): boolean;
}

export interface KvmBinding {
  readonly BindingKvm: { open(options: { path?: string; fd?: number }): BindingKvm };
  readonly BindingMemoryRegion: {
    anonymous(length: bigint): BindingMemoryRegion;
    memfd(length: bigint, pageSize: number): BindingMemoryRegion;
  };
}
