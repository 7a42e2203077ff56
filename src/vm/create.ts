// From options to a machine whose agent answers.

import {
  type Accelerator,
  GUEST_CID,
  type MachineExit,
  type ResolvedMachine,
  type RunningMachine,
} from '../accelerators/accelerator.ts';
import { type Choice, chooseAccelerator } from '../accelerators/choose.ts';
import { holdGuestFiles } from '../cache/hold-guest.ts';
import type { MachineSpec, VsockSpec } from '../config/machine-spec.ts';
import { normalize } from '../config/normalize.ts';
import type { MicroVMOptions } from '../config/options.ts';
import { MicroVMError, withDetails } from '../errors.ts';
import { guestFiles } from '../guest/files.ts';
import { buildInitramfs } from '../guest/initramfs.ts';
import { findKernel } from '../guest/kernel.ts';
import { AgentApi, API_PORT } from '../guest-api/agent-api.ts';
import { GuestPorts } from '../guest-api/guest-ports.ts';
import { followSignals } from '../host/follow-signals.ts';
import { createRuntimeFolder } from '../host/runtime-folder.ts';
import { Patience } from '../host/patience.ts';
import { VhostVsock } from '../host/vhost-vsock.ts';
import { agentPath } from '../native.ts';
import { COMMAND_PORT, CommandChannel } from '../vsock/command-channel.ts';
import { type ShareDaemon, startShareDaemon } from '../virtio-fs/daemon.ts';
import { findShares, type Share, shareModules } from '../virtio-fs/share.ts';
import { afVsockTransport } from '../vsock/af-vsock.ts';
import { GuestVsock } from '../vsock/guest-vsock.ts';
import { serveHybrid } from '../vsock/hybrid-server.ts';
import { unixTransport } from '../vsock/transport.ts';
import { BootLimit } from './boot-limit.ts';
import { CleanUpStack } from './cleanup.ts';
import { GuestConsole, lastWords } from './console.ts';
import { describeExit, isOrderly } from './describe-exit.ts';
import { END_GRACE_MS, exitError } from './exit-error.ts';
import type { MachineInfo } from './info.ts';
import { kernelCommandLine } from './kernel-command-line.ts';
import { startShared } from './shared-machine.ts';
import { type BootTimings, PhaseClock } from './timings.ts';

/** A machine whose agent has answered, with all that belongs to it. */
export interface BootedMachine {
  readonly spec: MachineSpec;
  /** The one that was given, or an id. */
  readonly name: string;
  readonly accelerator: Accelerator['name'];
  readonly acceleratorReason: string;
  readonly machine: RunningMachine;
  readonly console: GuestConsole;
  readonly channel: CommandChannel;
  readonly api: AgentApi;
  /** What the guest is waited for: held up while it is paused. */
  readonly patience: Patience;
  readonly vsock: GuestVsock;
  readonly ports: GuestPorts;
  readonly timings: BootTimings;
  readonly info: MachineInfo;
  /** Resolves when the machine has ended and nothing of it is left; never rejects. */
  readonly exited: Promise<MachineExit>;
  /** Aborted, with the `MachineExit` as its reason, as soon as the machine has ended. */
  readonly ended: AbortSignal;
  /** Ends the machine at once, and tells how it ended. */
  readonly kill: () => Promise<MachineExit>;
}

/**
 * Makes the machine. When it rejects, everything that was started or made is gone.
 *
 * @param choose what picks the accelerator; the benchmark puts another monitor in its place
 */
export async function createMachine(
  options: MicroVMOptions,
  choose: (spec: MachineSpec) => Promise<Choice> = chooseAccelerator,
): Promise<BootedMachine> {
  const spec = normalize(options);
  const { signal } = options;
  const cleanUp = new CleanUpStack();
  try {
    throwIfAborted(signal);
    return await boot(spec, options, cleanUp, new PhaseClock(options.onPhase), choose);
  } catch (error) {
    // What could not be undone matters less than why the machine was not made.
    await cleanUp.run().catch(() => {});
    if (signal?.aborted && !(error instanceof MicroVMError && error.code === 'ERR_ABORTED')) throw aborted(signal);
    // Loaded where it is needed: a machine that starts does not pay for the doctor.
    const { withStartHint } = await import('../doctor/start-hint.ts');
    throw await withStartHint(error, spec.kvmDevice);
  }
}

async function boot(
  spec: MachineSpec,
  { signal, onConsole }: MicroVMOptions,
  cleanUp: CleanUpStack,
  clock: PhaseClock,
  choose: (spec: MachineSpec) => Promise<Choice>,
): Promise<BootedMachine> {
  const { accelerator, reason } = await clock.time('choose', () => choose(spec));
  const shares = await findShares(spec);
  const commandLine = kernelCommandLine(spec, accelerator, shares);
  const vhost = takeVhostVsock(spec.vsock, cleanUp);
  const ports = await listenOnHost(spec, cleanUp);
  // What is looked at must be there until the guest has read it.
  const held = await holdGuestFiles(guestFiles(spec));
  cleanUp.add({ run: () => held.release(), sync: () => {} });
  const kernel = await clock.time('kernel', () => findKernel(spec.kernel));
  throwIfAborted(signal);
  const { memoryBytes, rootfs } = spec;
  const initramfs = await clock.time('initramfs', () =>
    buildInitramfs({
      kernel,
      rootfs,
      transport: accelerator.transport,
      modules: shareModules(shares, spec),
      memoryBytes,
      agent: agentPath(),
      signal,
    }),
  );
  cleanUp.add({ run: () => initramfs.release(), sync: () => {} });
  throwIfAborted(signal);

  const limit = new BootLimit(spec.bootTimeoutMs[accelerator.name]);
  const started = await clock.time('machine', async () => {
    const folder = await createRuntimeFolder(undefined, { name: spec.name });
    cleanUp.add({ run: () => folder.remove(), sync: () => folder.removeSync() });
    const vsockSocket = folder.socketPath('vsock');
    const transport = vhost ? afVsockTransport(vhost) : unixTransport(vsockSocket);
    const channel = new CommandChannel(await transport.listen(commandPort(spec.vsock)));
    cleanUp.add({ run: () => channel.close(), sync: () => {} });
    const patience = new Patience();
    const api = new AgentApi(transport, { patience, lossGraceMs: END_GRACE_MS });
    cleanUp.add({ run: async () => api.close(), sync: () => {} });
    // A connection of their own: a thousand streams of a browser's must not hold up a command.
    const portsApi = new AgentApi(transport, { patience });
    cleanUp.add({ run: async () => portsApi.close(), sync: () => {} });
    const vsock = new GuestVsock(transport, [COMMAND_PORT, API_PORT, commandPort(spec.vsock)]);
    const resolved = {
      ...spec,
      kernel,
      initramfs: initramfs.path,
      commandLine,
      guestCid: vhost?.cid ?? GUEST_CID,
      vsockSocket,
      vhostVsockFd: vhost?.deviceFd,
      deviceSocket: folder.socketPath('device'),
      shares: shares.map(({ tag, requestQueues }) => ({ tag, requestQueues, socket: folder.socketPath(tag) })),
    };
    limit.start();
    const daemons = await limit.within(
      (bounded) => startDaemons(shares, resolved.shares, accelerator, cleanUp, bounded),
      signal,
    );
    throwIfAborted(signal);
    const machine = await startShared(daemons, () =>
      limit.within((bounded) => accelerator.start(resolved, bounded), signal),
    );
    cleanUp.add({ run: () => machine.kill(), sync: () => machine.killSync() });
    // The machine has its own: when that is closed, the guest's context ID is free.
    vhost?.releaseDevice();
    // The kernel's device has no socket by which this user's other programs would reach the guest.
    if (vhost) cleanUp.add({ run: await serveHybrid(vsockSocket, transport.dial), sync: () => {} });
    const console = new GuestConsole(machine.console, onConsole);
    const info: MachineInfo = {
      id: folder.name,
      accelerator: accelerator.name,
      kernel: { image: kernel.image, release: kernel.release },
      cpus: spec.cpus,
      memoryBytes,
      cid: resolved.guestCid,
      pid: machine.pid,
      runtimeFolder: folder.path,
      vsockSocket,
      startedAt: new Date(),
    };
    return { name: folder.name, machine, channel, api, portsApi, patience, vsock, ports, console, info };
  });

  await clock.time('boot', () => waitForAgent(started, limit, signal));
  ports.attach(started.portsApi);
  // The machine has read them long ago, and another one may want the room.
  await Promise.all([initramfs.release(), held.release()]);

  const ended = new AbortController();
  const exited = started.machine.exited.then(async (how) => {
    const exit = isOrderly(how) ? how : describeExit(how, await lastWords(started));
    ended.abort(exit);
    const gone = exitError(exit, 'before or while it was used', started.console.tail);
    started.api.close(gone);
    await Promise.all([started.vsock.close(gone), ports.close(gone)]);
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

/** Starts a daemon for each share; what was started is undone with the rest. */
async function startDaemons(
  shares: readonly Share[],
  resolved: ResolvedMachine['shares'],
  { tagsComeFrom }: Accelerator,
  cleanUp: CleanUpStack,
  signal: AbortSignal,
): Promise<ShareDaemon[]> {
  const starts = shares.map(async (share, index) => {
    const socket = resolved[index]?.socket ?? '';
    const daemon = await startShareDaemon(share, socket, tagsComeFrom === 'daemon', signal);
    cleanUp.add({ run: () => daemon.stop(), sync: () => daemon.stopSync() });
    return daemon;
  });
  // Those that start while another one fails are to be undone too.
  await Promise.allSettled(starts);
  return Promise.all(starts);
}

/** Listens for the guest before anything is built that would be in vain where a port is taken. */
async function listenOnHost(spec: MachineSpec, cleanUp: CleanUpStack): Promise<GuestPorts> {
  const ports = new GuestPorts();
  const over = new MicroVMError('ERR_MACHINE_EXITED', 'The machine was not made');
  cleanUp.add({ run: () => ports.close(over), sync: () => ports.closeSync() });
  for (const port of spec.ports) await ports.forward(port);
  return ports;
}

/** A context ID on the host's own vsock, taken before anything is built that would be in vain without. */
function takeVhostVsock(vsock: VsockSpec, cleanUp: CleanUpStack): VhostVsock | undefined {
  if (vsock.type === 'unix') return undefined;
  const taken = new VhostVsock(vsock.device, vsock.cid);
  cleanUp.add({ run: async () => taken.close(), sync: () => taken.close() });
  return taken;
}

function commandPort(vsock: VsockSpec): number {
  return (vsock.type === 'vhost' ? vsock.port : undefined) ?? COMMAND_PORT;
}

interface StartedMachine {
  readonly name: string;
  readonly machine: RunningMachine;
  readonly channel: CommandChannel;
  readonly api: AgentApi;
  readonly console: GuestConsole;
}

/** Waits for the agent; a machine that ends first is told at once. */
async function waitForAgent(started: StartedMachine, limit: BootLimit, signal: AbortSignal | undefined): Promise<void> {
  const { machine, channel, console } = started;
  const ended = new AbortController();
  let booting = true;
  void machine.exited.then(async (exit) => {
    const consoleTail = await lastWords(started);
    if (booting) ended.abort(bootError(describeExit(exit, consoleTail), consoleTail));
  });
  const either = followSignals(ended.signal, signal);
  try {
    await channel.accept({ timeoutMs: limit.remainingMs, signal: either.signal });
  } catch (error) {
    if (ended.signal.aborted) throw ended.signal.reason;
    if (!(error instanceof MicroVMError)) throw error;
    if (error.code === 'ERR_AGENT_NOT_CONNECTED') throw limit.exceeded(error, console.tail);
    throw withDetails(error, { consoleTail: console.tail });
  } finally {
    booting = false;
    either.release();
  }
}

/** A guest that cannot mount a share says so and switches itself off. */
function bootError(exit: MachineExit, consoleTail: string): MicroVMError {
  const said = /microvm-agent: (cannot mount .*)/.exec(consoleTail)?.[1]?.trim();
  if (exit.reason !== 'power-off' || said === undefined) return exitError(exit, 'while it booted', consoleTail);
  return new MicroVMError('ERR_MOUNT_FAILED', `The guest ${said}`, { consoleTail });
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw aborted(signal);
}

function aborted(signal: AbortSignal): MicroVMError {
  return new MicroVMError('ERR_ABORTED', 'The creation of the machine was aborted', { cause: signal.reason });
}
