// The kvm accelerator: our own machine monitor, in this process.

import type { BindingMachine, BindingMachineConfig, BindingMachineMetrics } from '../binding.ts';
import { streamOf } from '../host/descriptor.ts';
import { fromNative } from '../native-error.ts';
import { loadBinding } from '../native.ts';
import {
  type Accelerator,
  type MachineExit,
  type ResolvedMachine,
  type RunningMachine,
  SHARE_QUEUE_SIZE,
} from './accelerator.ts';
import type { DeviceMetrics, HostMetrics } from './metrics.ts';
import { bootableImage } from './vmlinux.ts';

/** Virtio's number for a file system. */
const FILE_SYSTEM = 26;
/** Its numbers for the devices of a machine. */
const DEVICE_TYPES: Readonly<Record<number, DeviceMetrics['type']>> = { 4: 'rng', 19: 'vsock', [FILE_SYSTEM]: 'fs' };
/** Its queues besides those for requests. */
const HIGH_PRIORITY_QUEUES = 1;

export const kvm: Accelerator = {
  name: 'kvm',
  transport: 'mmio',
  tagsComeFrom: 'daemon',
  // No keyboard controller to probe, no PCI bus to scan; reset goes by the keyboard controller's reset line.
  commandLine: 'reboot=k pci=off i8042.noaux i8042.nomux i8042.dumbkbd tsc=reliable no_timer_check',

  async start(machine, signal) {
    const image = await bootableImage(machine.kernel);
    try {
      signal?.throwIfAborted();
      const native = await loadBinding().BindingMachine.create(configOf(machine, image.path));
      try {
        signal?.throwIfAborted();
        native.start();
        return new KvmMachine(native);
      } catch (error) {
        // Why it did not start matters more than what else fails.
        await native.stop().catch(() => {});
        throw error;
      }
    } catch (error) {
      throw signal?.aborted ? error : fromNative(error);
    } finally {
      await image.release();
    }
  },
};

function configOf(machine: ResolvedMachine, image: string): BindingMachineConfig {
  return {
    cpus: machine.cpus,
    memoryBytes: BigInt(machine.memoryBytes),
    hugePages: machine.hugePages,
    kernel: image,
    initramfs: machine.initramfs,
    commandLine: machine.commandLine,
    vsock: { guestCid: machine.guestCid, ...vsockHostEnd(machine) },
    rng: true,
    vhostUser: machine.shares.map(({ socket, requestQueues }) => ({
      socket,
      deviceType: FILE_SYSTEM,
      queues: HIGH_PRIORITY_QUEUES + requestQueues,
      queueSize: SHARE_QUEUE_SIZE,
    })),
    kvmDevice: machine.kvmDevice,
  };
}

function vsockHostEnd({ vhostVsockFd, vsockSocket }: ResolvedMachine): { socket: string } | { vhostFd: number } {
  return vhostVsockFd === undefined ? { socket: vsockSocket } : { vhostFd: vhostVsockFd };
}

function hostMetrics({ vcpusMs, devicesMs, ramBytes, devices }: BindingMachineMetrics): HostMetrics {
  return {
    cpu: { totalMs: vcpusMs.reduce((sum, time) => sum + time, devicesMs), vcpusMs },
    memory: { residentBytes: ramBytes, proportionalBytes: undefined, guestBytes: ramBytes },
    devices: devices.flatMap(({ deviceType, acknowledgedInterrupts, queues }) => {
      const type = DEVICE_TYPES[deviceType];
      return type === undefined ? [] : [{ type, acknowledgedInterrupts, queues }];
    }),
  };
}

class KvmMachine implements RunningMachine {
  readonly pid: number = process.pid;
  readonly console: RunningMachine['console'];
  readonly exited: Promise<MachineExit>;
  readonly #native: BindingMachine;

  constructor(native: BindingMachine) {
    this.#native = native;
    this.console = streamOf(native.takeConsole());
    this.exited = this.#end();
  }

  async pause(): Promise<void> {
    await told(() => this.#native.pause());
  }

  async resume(): Promise<void> {
    await told(() => this.#native.resume());
  }

  async metrics(): Promise<HostMetrics> {
    return told(async () => hostMetrics(this.#native.metrics()));
  }

  async powerButton(): Promise<void> {
    await told(async () => this.#native.pressPowerButton());
  }

  async kill(): Promise<MachineExit> {
    await this.#native.stop();
    return this.exited;
  }

  killSync(): void {
    this.#native.stopSync();
  }

  async #end(): Promise<MachineExit> {
    const exit = await this.#native.wait().catch((error): MachineExit => ({ reason: 'failed', detail: String(error) }));
    // Its threads are joined and its sockets removed before anybody hears of the end.
    await this.#native.stop().catch(() => {});
    return exit;
  }
}

/** What a call of the addon gives, its failure as this package's error. */
async function told<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw fromNative(error);
  }
}
