// The public API of `@hybrid/microvm/ring3`: re-exports only.

export { Platform, platforms } from './platform.ts';
export type { FileMemoryOptions, PlatformFacts, PlatformOptions } from './platform.ts';
export { Memory } from './memory.ts';
export { AddressSpace } from './address-space.ts';
export type { Mapping, Protection } from './address-space.ts';
export { Context } from './context.ts';
export type { SwitchOptions } from './context.ts';
export type { BusErrorExit, Exit, FaultExit } from './exit.ts';
export type { Registers, SegmentBases } from './state.ts';
export { MicroVMError } from '../errors.ts';
export type { MicroVMErrorCode, OptionProblem } from '../errors.ts';
