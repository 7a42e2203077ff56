// The tcg accelerator: QEMU emulates the processor. Our own vsock device serves it as a vhost-user back end, unless the guest's
// vsock is to be the host kernel's.

import { once } from 'node:events';
import type { Socket } from 'node:net';
import type { BindingVsockHost } from '../../binding.ts';
import { MicroVMError } from '../../errors.ts';
import { type SplitPair, splitSocketPair } from '../../host/descriptor.ts';
import { OLDEST_QEMU } from '../../host/qemu.ts';
import { waitAtMost } from '../../host/wait-at-most.ts';
import { fromNative } from '../../native-error.ts';
import { loadBinding } from '../../native.ts';
import type { Accelerator, MachineExit, ResolvedMachine, RunningMachine } from '../accelerator.ts';
import type { HostMetrics } from '../metrics.ts';
import { qemuArguments } from './arguments.ts';
import { qemuMetrics } from './metrics.ts';
import { type QemuProcess, startQemu } from './process.ts';
import { QmpClient, type QmpEvent } from './qmp.ts';

const CONSOLE_FD = 3;
const QMP_FD = 4;
const VHOST_VSOCK_FD = 5;
/** Milliseconds that what QEMU wrote before it ended may take to arrive. */
const LAST_WORDS_MS = 1_000;

export const tcg: Accelerator = {
  name: 'tcg',
  transport: 'pci',
  tagsComeFrom: 'monitor',
  // A busy host delays the emulated timer's interrupts: the kernel must not conclude that there are none.
  commandLine: 'no_timer_check',

  async start(machine, signal) {
    signal?.throwIfAborted();
    const running = launch(machine);
    const abort = (): void => running.killSync();
    signal?.addEventListener('abort', abort, { once: true });
    try {
      await running.begin();
      signal?.throwIfAborted();
      return running;
    } catch (error) {
      await running.discard();
      throw signal?.aborted ? signal.reason : error;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  },
};

function launch(machine: ResolvedMachine): QemuMachine {
  const { vhostVsockFd } = machine;
  const vsock = vhostVsockFd === undefined ? serveVsock(machine) : undefined;
  const pairs: SplitPair[] = [];
  try {
    const console = splitSocketPair();
    const qmp = splitSocketPair();
    pairs.push(console, qmp);
    const device = vsock ? { backend: machine.deviceSocket } : { vhostFd: VHOST_VSOCK_FD };
    const wiring = { consoleFd: CONSOLE_FD, qmpFd: QMP_FD, vsock: device };
    const qemu = startQemu(qemuArguments(machine, wiring), [
      { fd: console.fd, target: CONSOLE_FD },
      { fd: qmp.fd, target: QMP_FD },
      ...(vhostVsockFd === undefined ? [] : [{ fd: vhostVsockFd, target: VHOST_VSOCK_FD }]),
    ]);
    return new QemuMachine(qemu, vsock, machine.shares.length, console.stream, qmp.stream);
  } catch (error) {
    for (const { stream } of pairs) stream.destroy();
    vsock?.stopSync();
    throw error;
  } finally {
    for (const pair of pairs) pair.release();
  }
}

function serveVsock(machine: ResolvedMachine): BindingVsockHost {
  try {
    return loadBinding().serveVsock({
      guestCid: machine.guestCid,
      socket: machine.vsockSocket,
      vhostUserSocket: machine.deviceSocket,
    });
  } catch (error) {
    throw fromNative(error);
  }
}

class QemuMachine implements RunningMachine {
  readonly pid: number;
  readonly console: Socket;
  readonly exited: Promise<MachineExit>;
  readonly #qemu: QemuProcess;
  readonly #vsock: BindingVsockHost | undefined;
  readonly #shares: number;
  readonly #control: Promise<QmpClient>;
  #killed = false;
  /** Why QEMU ends, in its own words; it says so before it does. */
  #shutdownReason: string | undefined;

  constructor(
    qemu: QemuProcess,
    vsock: BindingVsockHost | undefined,
    shares: number,
    console: Socket,
    control: Socket,
  ) {
    this.#qemu = qemu;
    this.pid = qemu.pid;
    this.#vsock = vsock;
    this.#shares = shares;
    this.console = console;
    this.#control = QmpClient.connect(control, OLDEST_QEMU, (event) => this.#note(event));
    // Whoever needs the connection sees the failure; nobody does where QEMU is killed at once.
    this.#control.catch(() => {});
    this.exited = this.#end(control);
  }

  /** Waits until QEMU is ready and lets the processors run. */
  async begin(): Promise<void> {
    try {
      await (await this.#control).execute('cont');
    } catch (error) {
      if (error instanceof MicroVMError && error.code === 'ERR_QEMU_TOO_OLD') throw error;
      await this.discard();
      const message = `QEMU did not start the machine: ${await this.#qemu.ended}`;
      throw new MicroVMError('ERR_QEMU_FAILED', message, { cause: error });
    }
  }

  async pause(): Promise<void> {
    await (await this.#control).execute('stop');
  }

  async resume(): Promise<void> {
    await (await this.#control).execute('cont');
  }

  async metrics(): Promise<HostMetrics> {
    const cpus = await (await this.#control).execute('query-cpus-fast');
    try {
      const vsock = this.#vsock?.metrics();
      return await qemuMetrics({ pid: this.pid, cpus, vsock, shares: this.#shares });
    } catch (error) {
      throw error instanceof MicroVMError ? error : unreadable(error);
    }
  }

  async powerButton(): Promise<void> {
    await (await this.#control).execute('system_powerdown');
  }

  async kill(): Promise<MachineExit> {
    this.killSync();
    return this.exited;
  }

  /** Ends a machine that nobody got: there is no one to read its console to the end either. */
  async discard(): Promise<void> {
    this.console.destroy();
    await this.kill();
  }

  killSync(): void {
    this.#killed = true;
    this.#qemu.kill();
  }

  #note({ event, data }: QmpEvent): void {
    if (event === 'SHUTDOWN') this.#shutdownReason = String(data?.['reason']);
  }

  async #end(control: Socket): Promise<MachineExit> {
    const ended = await this.#qemu.ended;
    // The event was written before QEMU ended, but may still be on its way through the stream. A program in QEMU's place
    // may have handed the other end on.
    if (!control.closed) await waitAtMost(once(control, 'close'), LAST_WORDS_MS);
    control.destroy();
    await this.#vsock?.stop();
    const reason = this.#shutdownReason;
    if (reason === 'guest-shutdown') return { reason: 'power-off' };
    if (reason === 'guest-reset' || reason === 'guest-panic') return { reason: 'reset' };
    if (this.#killed) return { reason: 'stopped' };
    return { reason: 'failed', detail: `QEMU ended with ${ended}` };
  }
}

function unreadable(cause: unknown): MicroVMError {
  return new MicroVMError('ERR_QEMU_FAILED', "QEMU's figures cannot be read", { cause });
}
