// What a command costs: `exec('true')` from here and back, against fork, exec and wait of the same program in the guest.

import type { MicroVM } from '../../index.ts';
import { median } from '../median.ts';
import { type Figure, GUEST_PROGRAM } from './report.ts';

/** By turns so many of the one and of the other, so that what else the host does hits both alike. */
const SHARE = 50;

/** Measures `rounds` times 50 of each. */
export async function roundTrips(vm: MicroVM, rounds: number): Promise<Figure> {
  const program = (await vm.exec('which true', { shell: true })).stdout.trim();
  const execs: number[] = [];
  const forks: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    for (let index = 0; index < SHARE; index += 1) {
      const started = performance.now();
      await vm.exec('true');
      execs.push(performance.now() - started);
    }
    const { stdout } = await vm.exec(GUEST_PROGRAM, ['fork', `${SHARE}`, program]);
    forks.push(...stdout.trim().split('\n').map(inMilliseconds));
  }
  const [ours, reference] = [median(execs), median(forks)];
  return {
    title: "`exec('true')` and back",
    referenceTitle: `fork, exec and wait of \`${program}\` in the guest`,
    unit: 'ms',
    ours,
    reference,
    ratio: ours / reference,
    target: { atMost: 3 },
    samples: execs.length,
  };
}

function inMilliseconds(nanoseconds: string): number {
  return Number(nanoseconds) / 1e6;
}
