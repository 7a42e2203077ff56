// One guest with a device for each daemon, so that they are compared under the same kernel at the same time.

import type { Accelerator } from '../../src/accelerators/accelerator.ts';
import { tcg } from '../../src/accelerators/qemu/tcg.ts';
import type { KernelFiles } from '../../src/config/options.ts';
import { createMachine } from '../../src/vm/create.ts';
import { exec } from '../../src/vm/exec.ts';
import type { Daemon } from './daemons.ts';

/** A guest that runs lines of its shell. */
export interface Guest {
  /** Runs a line; resolves with what it printed, rejects where it fails. */
  run(line: string): Promise<string>;
  end(): Promise<void>;
}

/** Where a daemon's folder is in the guest. */
export const placeOf = ({ name }: Pick<Daemon, 'name'>): string => `/mnt/${name}`;

/** Boots the guest, with this host's programs, and mounts the folders of all daemons. */
export async function bootGuest(
  kernel: KernelFiles | undefined,
  daemons: readonly Daemon[],
  cpus: number,
): Promise<Guest> {
  const more = daemons.map(({ name, socket, requestQueues }) => ({ tag: name, socket, requestQueues }));
  const accelerator: Accelerator = {
    ...tcg,
    start: (machine, signal) => tcg.start({ ...machine, shares: [...machine.shares, ...more] }, signal),
  };
  const vm = await createMachine(
    { accelerator: 'tcg', kernel, rootfs: 'host', cpus, memory: '1GiB', bootTimeout: 300_000 },
    async () => ({ accelerator, reason: 'measured' }),
  );
  const guest: Guest = {
    run: async (line) => String((await exec(vm, line, [], { shell: true })).stdout).trim(),
    end: async () => void (await vm.kill()),
  };
  try {
    for (const daemon of daemons) {
      const place = placeOf(daemon);
      await guest.run(`mkdir -p ${place} && mount -t virtiofs ${daemon.name} ${place}`);
    }
    return guest;
  } catch (error) {
    await guest.end();
    throw error;
  }
}
