// The public API of `@hybrid/microvm/ring3`: re-exports only.

export { UserSandbox } from './user-sandbox.ts';
export type { SandboxLimits, UserSandboxOptions } from './sandbox-options.ts';
export type { OutputTarget, RunOptions } from './run-options.ts';
export type { RunResult } from './run.ts';
export type { Decision, Hook, SystemCall } from './hook.ts';
export type { Input } from './standard-input.ts';
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
export type { CommandOutcome, MicroVMErrorCode, OptionProblem } from '../errors.ts';
