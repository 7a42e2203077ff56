// What the native addon exports (crates/node), as this package uses it. Private to the package: no public type may
// name one of these. The addon's own list is native/binding.d.ts, which the build writes; a test compares the names.

import type { KvmBinding } from './kvm/binding.ts';
import type { Ring3Binding } from './ring3/binding.ts';

/** A failure of the addon: an `Error` with a `MicroVMErrorCode`, and with `errno` where a system call was refused. */
export interface BindingError extends Error {
  readonly code: string;
  readonly errno?: number;
  /** Of a file that is copied: the system call that was refused, and its path. */
  readonly syscall?: string;
  readonly path?: string;
}

export interface BindingGuestSpeed {
  /** How many times slower guest ring-0 code is than the same code on the host. */
  readonly ring0Ratio: number;
  /** The same for guest ring 3; absent where it cannot be measured. */
  readonly ring3Ratio?: number;
}

export interface BindingSpawnOptions {
  readonly program: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly fds: readonly { readonly fd: number; readonly target: number }[];
  readonly captureStderr: boolean;
  /** Number of the signal that it gets when this process ends; SIGKILL by default. */
  readonly endSignal?: number;
}

export interface BindingExitStatus {
  readonly code?: number;
  readonly signal?: number;
}

/** A helper process; it dies with this process or worker. */
export interface BindingChild {
  readonly pid: number;
  takeStderr(): number | null;
  wait(): Promise<BindingExitStatus>;
  kill(signal: number): void;
}

export interface BindingVsockOptions {
  readonly guestCid: number;
  /** The Unix socket for connections to the guest; `<socket>_<port>` are those for connections from it. */
  readonly socket: string;
  /** The Unix socket on which one VMM may connect and drive the device. */
  readonly vhostUserSocket: string;
}

export interface BindingQueueMetrics {
  readonly kicks: number;
  readonly interrupts: number;
  readonly buffers: number;
  readonly bytes: number;
}

export interface BindingVsockMetrics {
  /** Processor time of the thread that works on the queues. */
  readonly cpuMs: number;
  readonly queues: readonly BindingQueueMetrics[];
}

/** A vsock device run by a thread of this process, for a VMM elsewhere. */
export interface BindingVsockHost {
  metrics(): BindingVsockMetrics;
  stop(): Promise<void>;
  stopSync(): void;
}

/** A context ID on a vhost-vsock device, and the host's end of the guest that gets it. */
export interface BindingVhostVsock {
  readonly cid: number;
  /** The open device, to be copied. */
  device(): number;
  releaseDevice(): void;
  /** Gives a socket that gets a byte for each arrival. */
  listen(port: number, waiting: number): number;
  takeConnection(port: number): number | null;
  stopListening(port: number): void;
  /** Begins to connect to a port of the guest. */
  dial(port: number, timeoutMs: number): BindingVhostAttempt;
  close(): void;
}

/** An attempt to connect to a port of the guest. */
export interface BindingVhostAttempt {
  /** To be asked once. */
  socket(): Promise<number>;
  /** Closes the attempt's socket, and the promise rejects. Does nothing where it is decided. */
  cancel(): void;
}

export interface BindingMachineConfig {
  readonly cpus: number;
  readonly memoryBytes: bigint;
  readonly hugePages: boolean;
  readonly kernel: string;
  readonly initramfs?: string;
  readonly commandLine: string;
  /** Its host end is a Unix socket's path, or an open vhost-vsock device that has the context ID. */
  readonly vsock?: { readonly guestCid: number; readonly socket?: string; readonly vhostFd?: number };
  readonly rng: boolean;
  readonly vhostUser: readonly BindingVhostUser[];
  readonly kvmDevice?: string;
}

export interface BindingVhostUser {
  readonly socket: string;
  readonly deviceType: number;
  readonly queues: number;
  readonly queueSize: number;
}

export interface BindingMachineExit {
  readonly reason: 'power-off' | 'reset' | 'triple-fault' | 'stopped' | 'internal-error' | 'failed';
  readonly detail?: string;
}

export interface BindingMachineMetrics {
  readonly vcpusMs: readonly number[];
  readonly devicesMs: number;
  readonly ramBytes: number;
  readonly devices: readonly {
    readonly deviceType: number;
    readonly acknowledgedInterrupts: number;
    readonly queues?: readonly BindingQueueMetrics[];
  }[];
}

/** A machine of our own VMM. */
export interface BindingMachine {
  start(): void;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** What it did and took so far. */
  metrics(): BindingMachineMetrics;
  pressPowerButton(): void;
  stop(): Promise<void>;
  stopSync(): void;
  /** The host end of the serial console, which then belongs to the caller. */
  takeConsole(): number;
  wait(): Promise<BindingMachineExit>;
}

export interface BindingAccount {
  readonly name: string;
  readonly gid: number;
}

export interface BindingCopyProgress {
  readonly entries: number;
  readonly bytes: number;
  readonly path: string;
  /** With packing: the next piece, until the archive has ended. */
  readonly chunk?: Buffer;
}

/** Packs a tree of files; one call at a time. */
export interface BindingPacker {
  next(wanted: number): Promise<BindingCopyProgress>;
  close(): void;
}

/** Unpacks an archive; one call at a time. */
export interface BindingUnpacker {
  push(chunk: Uint8Array): Promise<BindingCopyProgress>;
  finish(): Promise<BindingCopyProgress>;
  close(): void;
}

export interface BindingUnpackOptions {
  readonly destination: string;
  readonly name?: string;
  readonly owner: boolean;
  readonly maxBytes: number;
  readonly maxEntries: number;
}

export interface Binding extends KvmBinding, Ring3Binding {
  readonly BindingMachine: { create(config: BindingMachineConfig): Promise<BindingMachine> };
  spawnHelper(options: BindingSpawnOptions): BindingChild;
  /** Two connected stream sockets as descriptors, both the caller's. */
  socketPair(): [number, number];
  /** A socket that listens at this path, which only its owner may connect to from the first moment on; the caller's. */
  listenPrivately(path: string): number;
  /** Closes one of those. */
  closeDescriptor(fd: number): void;
  serveVsock(options: BindingVsockOptions): BindingVsockHost;
  /** Opens a vhost-vsock device and takes the context ID that is given, or a free one. */
  takeVhostVsock(device: string, cid?: number): BindingVhostVsock;
  measureGuestSpeed(kvmDevice: string): Promise<BindingGuestSpeed>;
  /** Unpacks a bzImage's kernel; false where its compression is not one that we unpack. */
  extractVmlinux(bzImage: string, out: string): Promise<boolean>;
  /** What a path is called in an archive; null where its contents are packed without it. */
  archiveName(path: string): string | null;
  packTree(source: string, exclude: string[]): BindingPacker;
  unpackTree(options: BindingUnpackOptions): BindingUnpacker;
  /** The version that the addon was built as. */
  addonVersion(): string;
  accountOf(uid: number): BindingAccount | null;
  groupName(gid: number): string | null;
  /** The groups of a user who logs in now. */
  groupsOfUser(name: string, primary: number): number[];
  extendedAttribute(path: string, name: string): Uint8Array | null;
  /** Tries an interface of the kernel by the name that crates/host gives it; 0, or what it says of itself. */
  tryInterface(name: string): number;
  /** Takes a context ID on a vhost-vsock device and gives it back. */
  tryVsockCid(device: string, cid: number): void;
}
