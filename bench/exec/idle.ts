// What commands that do nothing cost this host: memory of this process, and what they use of the guest's.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import type { MicroVM } from '../../index.ts';
import { memoryBeyondGuest } from '../boot/memory.ts';
import type { Figure } from './report.ts';

const COMMANDS = 100;
const MIB = 2 ** 20;

interface Held {
  /** By this process, without the guest's memory. */
  readonly own: number;
  /** By the guest, of its memory: all of it may become this host's. */
  readonly guest: number;
}

/** Measures once: what a second batch would find is what the first gave back. */
export async function idle(vm: MicroVM): Promise<{ figure: Figure; guestMiB: number }> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const held = async (): Promise<Held> => {
    const { memoryTotalBytes, memoryAvailableBytes } = (await vm.metrics()).guest;
    collect();
    return { own: memoryBeyondGuest('self'), guest: memoryTotalBytes - memoryAvailableBytes };
  };
  const before = await held();
  const commands = Array.from({ length: COMMANDS }, () => vm.exec('sleep', ['100000'], { reject: false }));
  await Promise.all(commands.map(({ pid }) => pid));
  const after = await held();
  await Promise.all(commands.map((command) => command.kill('SIGKILL')));
  await Promise.all(commands);
  const each = (what: keyof Held): number => (after[what] - before[what]) / COMMANDS / MIB;
  const ours = each('own') + each('guest');
  return {
    figure: {
      title: `memory for one of ${COMMANDS} idle commands, here and in the guest`,
      referenceTitle: undefined,
      unit: 'MiB',
      ours,
      reference: undefined,
      ratio: ours,
      target: { atMost: 1 },
      samples: 1,
    },
    guestMiB: each('guest'),
  };
}
