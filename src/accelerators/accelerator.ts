// What an accelerator is: something that turns a resolved machine into a running one.

import type { Duplex } from 'node:stream';
import type { GuestKernel } from '../guest/kernel.ts';
import type { HostMetrics } from './metrics.ts';

/** Context ID of guests whose vsock device is ours: each has a vsock of its own, so all can have the same. */
export const GUEST_CID = 3;

/** Requests that can wait in a share's queue. */
export const SHARE_QUEUE_SIZE = 1024;

/** A machine with everything found and built: plain data, ready to be started. */
export interface ResolvedMachine {
  readonly cpus: number;
  readonly memoryBytes: number;
  /** For kvm only: a machine for tcg has it false. */
  readonly hugePages: boolean;
  readonly kernel: GuestKernel;
  /** Path of the initramfs. */
  readonly initramfs: string;
  /** The whole kernel command line. */
  readonly commandLine: string;
  /** The vsock device's context ID. */
  readonly guestCid: number;
  /** Path of the vsock device's Unix socket, in a private folder. */
  readonly vsockSocket: string;
  /**
   * Instead of that: an open vhost-vsock device of the host's kernel that has the context ID. The caller keeps its own.
   * @default none: the vsock device is ours, with the Unix socket
   */
  readonly vhostVsockFd?: number | undefined;
  /** Path for a further Unix socket in that folder, for accelerators that need one. */
  readonly deviceSocket: string;
  readonly kvmDevice: string;
  /** Shares of this host's files, whose daemons listen. */
  readonly shares: readonly ResolvedShare[];
}

/** A virtio-fs device, whose daemon listens. */
export interface ResolvedShare {
  /** By which the guest mounts it. */
  readonly tag: string;
  /** Path of the daemon's socket. */
  readonly socket: string;
  readonly requestQueues: number;
}

/** Why a machine ended. */
export type MachineExitReason =
  /** The guest switched itself off. */
  | 'power-off'
  /** The guest asked for a reset; also how a kernel panic ends that the console does not tell of, and on tcg a triple fault. */
  | 'reset'
  /** The guest's kernel panicked, as its console says; `detail` has its words. */
  | 'panic'
  /** The guest's processor shut down by a triple fault. */
  | 'triple-fault'
  /** It was stopped or killed from the host by its owner. */
  | 'stopped'
  /** KVM could not go on; `detail` has the registers. */
  | 'internal-error'
  /** A part of the machine failed or was killed; `detail` says which. */
  | 'failed';

/** How a machine ended. */
export interface MachineExit {
  readonly reason: MachineExitReason;
  readonly detail?: string | undefined;
  /** The last lines of the guest's console, unless it ended as it should (`power-off`, `stopped`). */
  readonly consoleTail?: string | undefined;
}

/** A machine whose processors run. */
export interface RunningMachine {
  /** The process that runs the guest: QEMU's, or this one. */
  readonly pid: number;
  /** The serial console. Its owner must read it. */
  readonly console: Duplex;
  /** Resolves when the machine has ended and nothing of it is left; never rejects. */
  readonly exited: Promise<MachineExit>;
  /** Stops the processors. Rejects with a `MicroVMError` when it has ended, as the next ones do. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** What it takes and did so far; a paused machine tells, too. */
  metrics(): Promise<HostMetrics>;
  /** Presses the power button; what happens then is the guest's affair. */
  powerButton(): Promise<void>;
  /** Ends it at once; resolves when nothing is left. Calling it again does nothing. */
  kill(): Promise<MachineExit>;
  /** The same without waiting, for `process.on('exit')`. */
  killSync(): void;
}

export interface Accelerator {
  readonly name: 'kvm' | 'tcg';
  /** How virtio devices are plugged: decides which drivers the guest needs. */
  readonly transport: 'mmio' | 'pci';
  /** Who tells the guest the tag of a share. QEMU up to 8.0 crashes on daemons that do. */
  readonly tagsComeFrom: 'daemon' | 'monitor';
  /** What its machines need on the kernel command line. */
  readonly commandLine: string;
  /** Starts a machine. When it rejects, or `signal` aborts it, nothing is left behind. */
  start(machine: ResolvedMachine, signal?: AbortSignal): Promise<RunningMachine>;
}
