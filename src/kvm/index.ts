// The public API of `@hybrid/microvm/kvm`: re-exports only.

export { Kvm } from './kvm.ts';
export type { KvmOptions } from './kvm.ts';
export { VirtualMachine } from './virtual-machine.ts';
export type { MemorySlot } from './virtual-machine.ts';
export { VirtualCpu } from './virtual-cpu.ts';
export { VirtualCpuState } from './virtual-cpu-state.ts';
export type { GuestDebug } from './virtual-cpu-state.ts';
export { VirtualCpuRunner } from './runner.ts';
export type { RunOptions } from './runner.ts';
export { MemoryRegion } from './memory-region.ts';
export type { MemfdOptions } from './memory-region.ts';
export type { Exit, InternalErrorExit, IoIn, IoOut, MmioRead, MmioWrite } from './exit.ts';
export type { ExtensionName } from './extensions.ts';
export type {
  CpuidEntry,
  DebugRegs,
  DescriptorTable,
  Fpu,
  MpState,
  Msr,
  Regs,
  Segment,
  Sregs,
  VcpuEvents,
  Xcr,
} from './state.ts';
export { MicroVMError } from '../errors.ts';
export type { MicroVMErrorCode } from '../errors.ts';
