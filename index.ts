// The public API: re-exports only.

export { GuestFileError, GuestProcess, MicroVM } from './src/micro-vm.ts';
export type {
  BootTimings,
  CopyOptions,
  CopyOutOptions,
  CopyProgress,
  CopyResult,
  ExecOptions,
  ExecResult,
  FileContent,
  GuestConsole,
  GuestDirent,
  GuestFiles,
  GuestStats,
  GuestWatcher,
  MachineExit,
  MachineExitReason,
  ReadOptions,
  ReadStreamOptions,
  StdinSource,
  StopOptions,
  WatchEvent,
  WatchOptions,
  WriteFlag,
  WriteOptions,
  WriteStreamOptions,
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
export type { CommandOutcome, MicroVMErrorCode, OptionProblem, OptionProblemCode } from './src/errors.ts';
