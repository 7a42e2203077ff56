import type { RootfsSpec } from '../config/machine-spec.ts';
import type { GuestKernel } from './kernel.ts';

export interface InitramfsRequest {
  readonly kernel: GuestKernel;
  readonly rootfs: RootfsSpec;
  /** How the virtio devices are plugged: it decides which kernel modules go in. kvm: mmio, tcg: pci. */
  readonly transport: 'mmio' | 'pci';
  readonly memoryBytes: number;
  /** Path of the agent's executable. */
  readonly agent: string;
  readonly signal?: AbortSignal | undefined;
}

/** A built initramfs in the cache, kept from `microvm cache clean` until it is released. */
export interface Initramfs {
  readonly path: string;
  readonly bytes: number;
  /** False when it had to be built. */
  readonly cached: boolean;
  /** Call it when the machine has read the file. */
  release(): Promise<void>;
}

/** Builds the initramfs, or takes it from the cache. */
export async function buildInitramfs(_request: InitramfsRequest): Promise<Initramfs> {
  throw new Error('Not written yet');
}
