// The public API: re-exports only.

export { GuestFileError, GuestProcess, MicroVM } from './src/micro-vm.ts';
export type {
  AppendOptions,
  BootTimings,
  CopyOptions,
  CopyOutOptions,
  CopyProgress,
  CopyResult,
  DeviceMetrics,
  ExecOptions,
  ExecResult,
  FileContent,
  GuestConsole,
  GuestDirent,
  GuestFiles,
  GuestStats,
  GuestVsock,
  GuestWatcher,
  HostMetrics,
  MachineExit,
  MachineExitReason,
  MachineInfo,
  MachineMetrics,
  MkdirOptions,
  PortAddress,
  PortForward,
  QueueMetrics,
  ReaddirOptions,
  ReadFileOptions,
  ReadOptions,
  ReadStreamOptions,
  RmOptions,
  StdinSource,
  StopOptions,
  TextEncoding,
  VsockConnectOptions,
  VsockServer,
  WatchEvent,
  WatchOptions,
  WriteFlag,
  WriteOptions,
  WriteStreamOptions,
} from './src/micro-vm.ts';
export type {
  BootPhase,
  ForwardOptions,
  KernelFiles,
  MicroVMOptions,
  MountOptions,
  ReverseOptions,
  RootfsFolder,
  VhostVsockOptions,
} from './src/config/options.ts';
export { VirtioFs } from './src/virtio-fs/virtio-fs.ts';
export type { VirtioFsOptions } from './src/virtio-fs/virtio-fs.ts';
export { MicroVMError } from './src/errors.ts';
export type { CommandOutcome, MicroVMErrorCode, OptionProblem, OptionProblemCode } from './src/errors.ts';
