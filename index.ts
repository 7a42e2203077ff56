// The public API: re-exports only.

export { MicroVM } from './src/micro-vm.ts';
export type {
  BootTimings,
  ExecOptions,
  ExecResult,
  GuestConsole,
  MachineExit,
  MachineExitReason,
  StopOptions,
} from './src/micro-vm.ts';
export type {
  BootPhase,
  KernelFiles,
  MicroVMOptions,
  MountOptions,
  RootfsFolder,
  VhostVsockOptions,
} from './src/config/options.ts';
export { VirtioFs } from './src/virtio-fs/virtio-fs.ts';
export type { VirtioFsOptions } from './src/virtio-fs/virtio-fs.ts';
export { MicroVMError } from './src/errors.ts';
export type { CommandOutcome, MicroVMErrorCode, OptionProblem } from './src/errors.ts';
