// From options to a machine whose agent answers.

import { type Accelerator, GUEST_CID, type MachineExit, type RunningMachine } from '../accelerators/accelerator.ts';
import { chooseAccelerator } from '../accelerators/choose.ts';
import type { MachineSpec } from '../config/machine-spec.ts';
import { normalize } from '../config/normalize.ts';
import type { MicroVMOptions } from '../config/options.ts';
import { MicroVMError, withDetails } from '../errors.ts';
import { buildInitramfs } from '../guest/initramfs.ts';
import { findKernel } from '../guest/kernel.ts';
import { createRuntimeFolder } from '../host/runtime-folder.ts';
import { agentPath } from '../native.ts';
import { COMMAND_PORT, CommandChannel } from '../vsock/command-channel.ts';
import { listenForGuest } from '../vsock/unix.ts';
import { CleanUpStack } from './cleanup.ts';
import { GuestConsole } from './console.ts';
import { exitError } from './exit-error.ts';
import { kernelCommandLine } from './kernel-command-line.ts';
import { type BootTimings, PhaseClock } from './timings.ts';

/** A machine whose agent has answered, with all that belongs to it. */
export interface BootedMachine {
  readonly spec: MachineSpec;
  readonly accelerator: Accelerator['name'];
  readonly acceleratorReason: string;
  readonly machine: RunningMachine;
  readonly console: GuestConsole;
  readonly channel: CommandChannel;
  readonly timings: BootTimings;
  /** Resolves when the machine has ended and nothing of it is left; never rejects. */
  readonly exited: Promise<MachineExit>;
  /** Aborted, with the `MachineExit` as its reason, as soon as the machine has ended. */
  readonly ended: AbortSignal;
  /** Ends the machine at once, and tells how it ended. */
  readonly kill: () => Promise<MachineExit>;
}

/** Makes the machine. When it rejects, everything that was started or made is gone. */
export async function createMachine(options: MicroVMOptions): Promise<BootedMachine> {
  const spec = normalize(options);
  const { signal } = options;
  const cleanUp = new CleanUpStack();
  try {
    throwIfAborted(signal);
    return await boot(spec, signal, cleanUp, new PhaseClock(options.onPhase));
  } catch (error) {
    // What could not be undone matters less than why the machine was not made.
    await cleanUp.run().catch(() => {});
    if (signal?.aborted && !(error instanceof MicroVMError && error.code === 'ERR_ABORTED')) throw aborted(signal);
    throw error;
  }
}

async function boot(
  spec: MachineSpec,
  signal: AbortSignal | undefined,
  cleanUp: CleanUpStack,
  clock: PhaseClock,
): Promise<BootedMachine> {
  const { accelerator, reason } = await clock.time('choose', () => chooseAccelerator(spec));
  const commandLine = kernelCommandLine(spec, accelerator);
  const kernel = await clock.time('kernel', () => findKernel(spec.kernel));
  throwIfAborted(signal);
  const { memoryBytes, rootfs } = spec;
  const initramfs = await clock.time('initramfs', () =>
    buildInitramfs({ kernel, rootfs, transport: accelerator.transport, memoryBytes, agent: agentPath(), signal }),
  );
  cleanUp.add({ run: () => initramfs.release(), sync: () => {} });
  throwIfAborted(signal);

  const started = await clock.time('machine', async () => {
    const folder = await createRuntimeFolder();
    cleanUp.add({ run: () => folder.remove(), sync: () => folder.removeSync() });
    const vsockSocket = folder.socketPath('vsock');
    const channel = new CommandChannel(await listenForGuest(vsockSocket, COMMAND_PORT));
    cleanUp.add({ run: () => channel.close(), sync: () => {} });
    const machine = await accelerator.start(
      {
        ...spec,
        kernel,
        initramfs: initramfs.path,
        commandLine,
        guestCid: GUEST_CID,
        vsockSocket,
        deviceSocket: folder.socketPath('device'),
      },
      signal,
    );
    cleanUp.add({ run: () => machine.kill(), sync: () => machine.killSync() });
    return { machine, channel, console: new GuestConsole(machine.console) };
  });

  const timeoutMs = spec.bootTimeoutMs[accelerator.name];
  await clock.time('boot', () => waitForAgent(started, timeoutMs, signal));
  // The machine has read it long ago, and another one may want the room.
  await initramfs.release();

  const ended = new AbortController();
  const exited = started.machine.exited.then(async (exit) => {
    ended.abort(exit);
    await cleanUp.run().catch(() => {});
    return exit;
  });
  return {
    ...started,
    spec,
    accelerator: accelerator.name,
    acceleratorReason: reason,
    timings: clock.timings(),
    exited,
    ended: ended.signal,
    async kill() {
      await started.machine.kill();
      return exited;
    },
  };
}

interface StartedMachine {
  readonly machine: RunningMachine;
  readonly channel: CommandChannel;
  readonly console: GuestConsole;
}

/** Waits for the agent; a machine that ends first is told at once. */
async function waitForAgent(
  started: StartedMachine,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { machine, channel, console } = started;
  const ended = new AbortController();
  let booting = true;
  void machine.exited.then((exit) => {
    if (booting) ended.abort(exitError(exit, 'while it booted', console.tail));
  });
  try {
    await channel.accept({ timeoutMs, signal: AbortSignal.any([ended.signal, ...(signal ? [signal] : [])]) });
  } catch (error) {
    if (ended.signal.aborted) throw ended.signal.reason;
    throw bootFailure(error, timeoutMs, console.tail);
  } finally {
    booting = false;
  }
}

function bootFailure(error: unknown, timeoutMs: number, consoleTail: string): unknown {
  if (!(error instanceof MicroVMError)) return error;
  if (error.code !== 'ERR_AGENT_NOT_CONNECTED') return withDetails(error, { consoleTail });
  return new MicroVMError('ERR_BOOT_TIMEOUT', `The guest's agent did not connect within ${timeoutMs} ms`, {
    cause: error,
    consoleTail,
    hint: 'See consoleTail for what the guest printed last; bootTimeout raises the limit.',
  });
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw aborted(signal);
}

function aborted(signal: AbortSignal): MicroVMError {
  return new MicroVMError('ERR_ABORTED', 'The creation of the machine was aborted', { cause: signal.reason });
}
