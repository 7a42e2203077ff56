// The one error class of the package and the list of its codes.
// docs/errors.md explains each code to users: keep both lists alike (a test compares them).

/** Every code a `MicroVMError` can carry. Codes are stable: programs may compare them. */
export type MicroVMErrorCode =
  // Options
  /** One or more options are wrong; `problems` lists all of them. */
  | 'ERR_INVALID_OPTIONS'
  /** The kernel command line does not fit in what the kernel reads. */
  | 'ERR_COMMAND_LINE_TOO_LONG'
  /** The chosen accelerator cannot do what was asked. */
  | 'ERR_NOT_SUPPORTED'
  /** The caller's `signal` was aborted while the machine was being created. */
  | 'ERR_ABORTED'
  // KVM
  /** The KVM device does not exist. */
  | 'ERR_KVM_MISSING'
  /** The KVM device exists, but this user may not open it. */
  | 'ERR_KVM_PERMISSION'
  /** The file or descriptor is not a KVM device. */
  | 'ERR_KVM_NOT_A_DEVICE'
  /** The kernel speaks another version of the KVM API than 12. */
  | 'ERR_KVM_API_VERSION'
  /** The KVM device emulates guest kernel code, so that a stock kernel hardly runs there. */
  | 'ERR_KVM_EMULATED'
  /** KVM lacks extensions that machines need; the message names them. */
  | 'ERR_KVM_EXTENSION'
  /** A KVM call failed; the message names the ioctl and the errno. */
  | 'ERR_KVM_FAILED'
  /** An access would leave the memory region. */
  | 'ERR_KVM_OUT_OF_BOUNDS'
  /** A length or guest address is zero where it may not be, no multiple of the page size, or too large. */
  | 'ERR_KVM_UNALIGNED'
  /** A memory slot would overlap another one. */
  | 'ERR_KVM_SLOT_OVERLAP'
  /** The answer has another length than the guest reads, or nobody waits for one. */
  | 'ERR_KVM_INVALID_ANSWER'
  /** The vCPU is running. */
  | 'ERR_KVM_BUSY'
  /** The device, machine, vCPU or memory region was closed. */
  | 'ERR_KVM_CLOSED'
  // Ring 3
  /** This host's KVM cannot run programs in ring 3 so that every result is right; the message has the reason. */
  | 'ERR_RING3_UNSUPPORTED'
  /** A range or a part of a memory is not whole pages, outside of what there is, not mapped, or may only be read. */
  | 'ERR_RING3_RANGE'
  /** The context or the sandbox is running. */
  | 'ERR_RING3_BUSY'
  /** The platform, memory, address space, context or sandbox was closed. */
  | 'ERR_RING3_CLOSED'
  /** A file or folder of the host cannot be opened, read or mapped. */
  | 'ERR_RING3_FILE'
  /** The program that was to run does not exist. */
  | 'ERR_PROGRAM_MISSING'
  /** The program's file cannot be read, or is none that can run here: the message says why. */
  | 'ERR_PROGRAM_INVALID'
  /** `onSyscall` threw, rejected, or gave something that is no decision; `cause` is what it threw. */
  | 'ERR_SYSCALL_HOOK'
  /** The platform failed: no room is left in the machine, a processor state was lost, or KVM gave up. */
  | 'ERR_RING3_FAILED'
  // Kernel, root file system, initramfs
  /** No kernel was given and none was found; `lookedAt` lists the places. */
  | 'ERR_KERNEL_NOT_FOUND'
  /** The kernel that was given does not exist. */
  | 'ERR_KERNEL_MISSING'
  /** The kernel exists, but this user may not read it. */
  | 'ERR_KERNEL_UNREADABLE'
  /** The kernel file ends before its headers say it should. */
  | 'ERR_KERNEL_TRUNCATED'
  /** The file is not a kernel in a format that can be booted. */
  | 'ERR_KERNEL_INVALID'
  /** The kernel is for another processor architecture. */
  | 'ERR_KERNEL_ARCHITECTURE'
  /** The kernel's modules folder is missing, broken, or lacks a module that the guest needs. */
  | 'ERR_KERNEL_MODULES'
  /** The root file system that was given does not exist or cannot be read. */
  | 'ERR_ROOTFS_MISSING'
  /** The root file system cannot be packed: a malformed archive, or a file that an archive cannot hold. */
  | 'ERR_ROOTFS_INVALID'
  /** The default userland is not in the cache. */
  | 'ERR_USERLAND_MISSING'
  /** The guest agent's executable is missing. */
  | 'ERR_AGENT_MISSING'
  /** The initramfs, unpacked, does not fit in the guest's memory. */
  | 'ERR_INITRAMFS_TOO_LARGE'
  // Shares of this host's files
  /** The source of a mount does not exist or cannot be read. */
  | 'ERR_MOUNT_SOURCE'
  /** A share's daemon did not start, or the guest could not mount the share. */
  | 'ERR_MOUNT_FAILED'
  /** The daemon that shares host files is missing. */
  | 'ERR_VIRTIOFSD_MISSING'
  // The machine
  /** The machine did not start, or its agent did not connect, within `bootTimeout`; `consoleTail` shows what the guest printed. */
  | 'ERR_BOOT_TIMEOUT'
  /** No running machine has this name. */
  | 'ERR_MACHINE_NOT_FOUND'
  /** A running machine of this user has this name. */
  | 'ERR_MACHINE_NAME_TAKEN'
  /** The machine is no longer running. */
  | 'ERR_MACHINE_EXITED'
  /** The guest's kernel panicked, as its console says. */
  | 'ERR_GUEST_PANIC'
  /** The guest's processor shut down by a triple fault. */
  | 'ERR_TRIPLE_FAULT'
  /** KVM could not go on running the guest (KVM_EXIT_INTERNAL_ERROR); the message has the registers. */
  | 'ERR_INTERNAL_ERROR'
  /** The machine could not be built or a part of it failed. */
  | 'ERR_MACHINE_FAILED'
  // QEMU
  /** The QEMU executable was not found. */
  | 'ERR_QEMU_MISSING'
  /** QEMU is older than what the tcg accelerator needs. */
  | 'ERR_QEMU_TOO_OLD'
  /** QEMU ended early or refused a command; the message has its last words. */
  | 'ERR_QEMU_FAILED'
  // vsock and the command channel
  /** A path for a Unix socket is longer than the 107 bytes that Linux allows. */
  | 'ERR_SOCKET_PATH_TOO_LONG'
  /** Something else listens at a port or socket that was to be listened at, of this host or of the guest. */
  | 'ERR_PORT_TAKEN'
  /** A socket of this host could not be made, listened on or reached. */
  | 'ERR_SOCKET_FAILED'
  /** There is no vhost-vsock device. */
  | 'ERR_VHOST_VSOCK_MISSING'
  /** This user may not open the vhost-vsock device. */
  | 'ERR_VHOST_VSOCK_PERMISSION'
  /** The vhost-vsock device cannot be opened for another reason, or refused a call. */
  | 'ERR_VHOST_VSOCK_FAILED'
  /** Another guest of this host has the context ID. */
  | 'ERR_VSOCK_CID_TAKEN'
  /** Another program, or this machine already, listens at that vsock port of the host. */
  | 'ERR_VSOCK_PORT_TAKEN'
  /** The guest refused a connection to one of its vsock ports. */
  | 'ERR_VSOCK_REFUSED'
  /** The agent did not connect to the command channel in time. */
  | 'ERR_AGENT_NOT_CONNECTED'
  /** A command was sent over a channel that has no connection. */
  | 'ERR_CHANNEL_NOT_CONNECTED'
  /** The peer took too long to take a command, or paused too long inside a reply. */
  | 'ERR_CHANNEL_TIMEOUT'
  /** The peer closed the connection before its reply was whole. */
  | 'ERR_CHANNEL_SHORT_READ'
  /** The peer takes no more bytes: the connection was closed while a command was written. */
  | 'ERR_CHANNEL_WRITE_ZERO'
  /** The peer sent something that the protocol does not allow. */
  | 'ERR_CHANNEL_PROTOCOL'
  /** The peer announced a frame over the limit. */
  | 'ERR_CHANNEL_FRAME_TOO_LARGE'
  /** The command is over the limit; nothing was sent. */
  | 'ERR_COMMAND_TOO_LARGE'
  // The agent API
  /** The connection to the agent broke, or was closed, before the request had come to its end. */
  | 'ERR_AGENT_LOST'
  /** The agent did not begin to answer in time, or did not go on. */
  | 'ERR_AGENT_TIMEOUT'
  /** The agent sent something that its API does not allow, or did not tell how a command ended. */
  | 'ERR_AGENT_PROTOCOL'
  /** The agent refused a request; the message has its reason. */
  | 'ERR_AGENT_REFUSED'
  // Files of the guest
  /** A file has more bytes than `readFile` may take, `maxBytes`. */
  | 'ERR_FS_FILE_TOO_LARGE'
  /** A file or folder of this host cannot be read or written while it is copied; `cause` has the system call's errno. */
  | 'ERR_COPY_FILE'
  /** A file became shorter while it was copied. */
  | 'ERR_COPY_CHANGED'
  /** The archive has an entry that would leave the target, or a device. */
  | 'ERR_COPY_REFUSED'
  /** The archive is malformed or cut off. */
  | 'ERR_COPY_ARCHIVE'
  /** The archive holds more than `maxBytes` or `maxEntries`. */
  | 'ERR_COPY_LIMIT'
  /** More happened to watched files than was read in time; events are missing. */
  | 'ERR_WATCH_OVERFLOW'
  // exec
  /** The command ended with another exit code than 0. */
  | 'ERR_EXEC_FAILED'
  /** The command ran longer than `timeout`. */
  | 'ERR_EXEC_TIMEOUT'
  /** The caller's `signal` was aborted while the command was queued or running. */
  | 'ERR_EXEC_ABORTED'
  /** The working folder does not exist in the guest or cannot be entered. */
  | 'ERR_EXEC_CWD'
  /** The command wrote more than `maxBuffer`. */
  | 'ERR_EXEC_MAX_BUFFER'
  /** What was to be the command's standard input failed; `cause` says how. */
  | 'ERR_EXEC_STDIN'
  /** The command could not be started as it was asked for: no such user or group, no terminal. */
  | 'ERR_EXEC_START'
  // This host
  /** The native addon is missing for this platform or cannot be loaded. */
  | 'ERR_NATIVE_MISSING'
  /** A call into the native addon failed where it should not: a defect, or a host out of resources. */
  | 'ERR_NATIVE_FAILED'
  /** A process (QEMU, a device's daemon) could not be started. */
  | 'ERR_SPAWN_FAILED'
  /** The private folder for sockets cannot be made or is not safe to use. */
  | 'ERR_RUNTIME_FOLDER'
  /** The cache folder cannot be read or written. */
  | 'ERR_CACHE';

/** What is wrong with an option, stable across versions. */
export type OptionProblemCode =
  /** There is no such option. */
  | 'ERR_UNKNOWN_OPTION'
  /** A text has a NUL in it, which no kernel takes. */
  | 'ERR_NUL_BYTE'
  /** Memory of a size that a machine or sandbox cannot have: none, too little, too much, no whole pages. */
  | 'ERR_MEMORY_SIZE'
  /** A number of virtual processors that a machine cannot have. */
  | 'ERR_CPU_COUNT'
  /** Any other value that is not allowed. */
  | 'ERR_OPTION_VALUE';

/** One wrong option. */
export interface OptionProblem {
  /** What is wrong with it. */
  readonly code: OptionProblemCode;
  /** Where it is, as one would write it in code: `kernel.image`, `env["A B"]`. */
  readonly path: string;
  /** What was given, shortened for display; values of environment variables are never shown. */
  readonly value: string;
  /** What is allowed there. */
  readonly allowed: string;
}

/** What a command gave before `exec` rejected. */
export interface CommandOutcome {
  /** The command, as one would type it. */
  readonly command: string;
  /** All that the command wrote to standard output. Empty when no reply came. */
  readonly stdout: string;
  /** All that the command wrote to standard error. Empty when no reply came. */
  readonly stderr: string;
  /** The exit code; 128 + signal when a signal ended it; undefined when no reply came. */
  readonly exitCode: number | undefined;
  /** The signal that ended it, as `SIGSEGV`. */
  readonly signal: string | undefined;
  /** Whether `timeout` ended it. */
  readonly timedOut: boolean;
  /** Whether the caller's `signal` ended it. */
  readonly isCanceled: boolean;
  /** Milliseconds from sending the command to its end; the wait for its turn does not count. 0 when it was not sent. */
  readonly durationMs: number;
  /** Whether the guest's kernel killed it, or a process that it had started, for want of memory. */
  readonly oomKilled?: boolean | undefined;
  /** Of a program in a sandbox: the limit that ended it. */
  readonly limit?: 'memory' | 'cpu-time' | 'wall-time' | 'output' | undefined;
  /** Of a program in a sandbox: how many system calls it made. */
  readonly syscalls?: number;
  /** Of a program in a sandbox: the system calls that are not there, and how many of each it made. */
  readonly unsupported?: Readonly<Record<string, number>>;
}

/** What a `MicroVMError` is made of, apart from its code and message. */
export interface MicroVMErrorDetails {
  readonly cause?: unknown;
  readonly hint?: string | undefined;
  readonly consoleTail?: string | undefined;
  readonly problems?: readonly OptionProblem[];
  readonly lookedAt?: readonly string[];
  readonly outcome?: CommandOutcome;
}

/** Every failure of this package. `code` tells what happened, `hint` what to do about it. */
export class MicroVMError extends Error {
  override readonly name = 'MicroVMError';
  /** What went wrong, stable across versions. */
  readonly code: MicroVMErrorCode;
  /** What a person can do about it. */
  readonly hint: string | undefined;
  /** The last lines the guest printed on its console, where there was one. */
  readonly consoleTail: string | undefined;
  /** Every wrong option, with `ERR_INVALID_OPTIONS`. */
  readonly problems: readonly OptionProblem[] | undefined;
  /** The places that were searched, with `ERR_KERNEL_NOT_FOUND`. */
  readonly lookedAt: readonly string[] | undefined;
  /** The command, when `exec` rejected. */
  readonly command: string | undefined;
  /** The command's standard output so far, when `exec` rejected. */
  readonly stdout: string | undefined;
  /** The command's standard error so far, when `exec` rejected. */
  readonly stderr: string | undefined;
  /** The command's exit code, when `exec` rejected and a reply had come. */
  readonly exitCode: number | undefined;
  /** The signal that ended the command or the program in a sandbox, as `SIGSEGV`. */
  readonly signal: string | undefined;
  /** Whether the caller's `signal` ended the command, when `exec` rejected. */
  readonly isCanceled: boolean | undefined;
  /** Whether `timeout` ended the command, when `exec` rejected. */
  readonly timedOut: boolean | undefined;
  /** How long the command ran in milliseconds, when `exec` rejected; 0 when it was not sent. */
  readonly durationMs: number | undefined;
  /** Whether the guest's kernel killed the command, or a process of it, for want of memory; when `exec` rejected. */
  readonly oomKilled: boolean | undefined;
  /** The limit that ended a program in a sandbox. */
  readonly limit: CommandOutcome['limit'];
  /** How many system calls a program in a sandbox made. */
  readonly syscalls: number | undefined;
  /** System calls that a program in a sandbox made and that are not there, and how many of each. */
  readonly unsupported: Readonly<Record<string, number>> | undefined;

  constructor(code: MicroVMErrorCode, message: string, details: MicroVMErrorDetails = {}) {
    super(message, 'cause' in details ? { cause: details.cause } : undefined);
    this.code = code;
    this.hint = details.hint;
    this.consoleTail = details.consoleTail;
    this.problems = details.problems;
    this.lookedAt = details.lookedAt;
    this.command = details.outcome?.command;
    this.stdout = details.outcome?.stdout;
    this.stderr = details.outcome?.stderr;
    this.exitCode = details.outcome?.exitCode;
    this.signal = details.outcome?.signal;
    this.isCanceled = details.outcome?.isCanceled;
    this.timedOut = details.outcome?.timedOut;
    this.durationMs = details.outcome?.durationMs;
    this.oomKilled = details.outcome?.oomKilled;
    this.limit = details.outcome?.limit;
    this.syscalls = details.outcome?.syscalls;
    this.unsupported = details.outcome?.unsupported;
  }
}

/** The same error with more details, its stack and cause kept: for callers that know more, such as the console tail. */
export function withDetails(error: MicroVMError, details: MicroVMErrorDetails): MicroVMError {
  const merged = new MicroVMError(error.code, error.message, {
    ...('cause' in error ? { cause: error.cause } : {}),
    hint: error.hint,
    consoleTail: error.consoleTail,
    ...(error.problems && { problems: error.problems }),
    ...(error.lookedAt && { lookedAt: error.lookedAt }),
    ...details,
  });
  if (error.stack !== undefined) merged.stack = error.stack;
  return merged;
}

/** The errno name of a failed system call (`'ENOENT'`), if that is what `error` is. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
