// A machine together with the daemons that serve it files: it does not outlive any of them.

import type { MachineExit, RunningMachine } from '../accelerators/accelerator.ts';
import { MicroVMError } from '../errors.ts';
import { waitAtMost } from '../host/wait-at-most.ts';
import type { ShareDaemon } from '../virtio-fs/daemon.ts';

/** Milliseconds that the news of a daemon's end may take to arrive: more than its last words may. */
const NEWS_MS = 1_500;
/** Milliseconds that a machine may take to end after its daemons have seen its monitor go. */
const MONITOR_MS = 5_000;

/**
 * Starts a machine whose shares are served. A guest would wait for ever for a daemon that has ended, so the machine is
 * then ended, with the daemon's end as its reason.
 */
export async function startShared(
  daemons: readonly ShareDaemon[],
  start: () => Promise<RunningMachine>,
): Promise<RunningMachine> {
  if (daemons.length === 0) return start();
  let failure: string | undefined;
  const ends = daemons.map(async ({ ended }) => {
    failure ??= await ended;
  });
  // The first that tells why it ended, or that none of them does.
  const news = Promise.race([
    Promise.all(ends),
    ...daemons.map(async ({ ended }) => (await ended) ?? new Promise<never>(() => {})),
  ]);
  let machine: RunningMachine;
  try {
    machine = await start();
  } catch (error) {
    // A daemon that died is why the monitor could not connect.
    await waitAtMost(news, NEWS_MS);
    if (failure === undefined) throw error;
    throw new MicroVMError('ERR_MOUNT_FAILED', failure, { cause: error });
  }
  for (const { ended, name } of daemons) void watch(ended, name);
  const exited = machine.exited.then(async (exit): Promise<MachineExit> => {
    // A monitor that misses its daemon may end before that is heard of here.
    if (exit.reason === 'failed' || exit.reason === 'internal-error') await waitAtMost(news, NEWS_MS);
    return failure === undefined || exit.reason === 'power-off' ? exit : { reason: 'failed', detail: failure };
  });
  return {
    pid: machine.pid,
    console: machine.console,
    exited,
    pause: () => machine.pause(),
    resume: () => machine.resume(),
    metrics: () => machine.metrics(),
    powerButton: () => machine.powerButton(),
    killSync: () => machine.killSync(),
    async kill() {
      await machine.kill();
      return exited;
    },
  };

  async function watch(ended: Promise<string | undefined>, name: string): Promise<void> {
    // That the monitor has gone is no failure if it has.
    if ((await ended) === undefined && (await waitAtMost(machine.exited, MONITOR_MS))) return;
    failure ??= `${name} ended while the machine was running`;
    await machine.kill();
  }
}
