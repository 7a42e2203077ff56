// A machine together with the daemons that serve it files: it does not outlive any of them.

import type { MachineExit, RunningMachine } from '../accelerators/accelerator.ts';
import { MicroVMError } from '../errors.ts';
import { waitAtMost } from '../host/wait-at-most.ts';
import type { ShareDaemon } from '../virtio-fs/daemon.ts';

/** Milliseconds that the news of a daemon's end may take to arrive. */
const NEWS_MS = 500;

/**
 * Starts a machine whose shares are served. A guest would wait for ever for a daemon that died, so the machine is then
 * ended, with the daemon's end as its reason.
 */
export async function startShared(
  daemons: readonly ShareDaemon[],
  start: () => Promise<RunningMachine>,
): Promise<RunningMachine> {
  if (daemons.length === 0) return start();
  let failure: string | undefined;
  const failed = Promise.race(daemons.map(async ({ ended }) => (await ended) ?? new Promise<never>(() => {})));
  const note = failed.then((why) => (failure = why));
  let machine: RunningMachine;
  try {
    machine = await start();
  } catch (error) {
    // A daemon that died is why the monitor could not connect.
    await waitAtMost(note, NEWS_MS);
    if (failure === undefined) throw error;
    throw new MicroVMError('ERR_MOUNT_FAILED', failure, { cause: error });
  }
  void note.then(() => machine.kill());
  const exited = machine.exited.then(async (exit): Promise<MachineExit> => {
    // The monitor may notice before the news of why is here.
    if (exit.reason === 'failed') await waitAtMost(note, NEWS_MS);
    return failure === undefined ? exit : { reason: 'failed', detail: failure };
  });
  return {
    console: machine.console,
    exited,
    pause: () => machine.pause(),
    resume: () => machine.resume(),
    powerButton: () => machine.powerButton(),
    killSync: () => machine.killSync(),
    async kill() {
      await machine.kill();
      return exited;
    },
  };
}
