// The public API: re-exports only.

export { GuestProcess, MicroVM } from './src/micro-vm.ts';
export type {
  BootTimings,
  ExecOptions,
  ExecResult,
  GuestConsole,
  MachineExit,
  MachineExitReason,
  StdinSource,
  StopOptions,
} from './src/micro-vm.ts';
export type { BootPhase, KernelFiles, MicroVMOptions } from './src/config/options.ts';
export { MicroVMError } from './src/errors.ts';
export type { CommandOutcome, MicroVMErrorCode, OptionProblem } from './src/errors.ts';
