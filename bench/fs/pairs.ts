// Work of several daemons by turns, and what they took: a busy host slows all alike.

import { median } from '../median.ts';
import type { Daemon } from './daemons.ts';
import { type Guest, placeOf } from './guest.ts';
import type { Work } from './work.ts';

/** One work's milliseconds: for each round, of each daemon in their order. */
export interface Measured {
  readonly title: string;
  readonly rounds: readonly (readonly number[])[];
}

/** Measures all work, round by round. */
export async function measure(
  guest: Guest,
  daemons: readonly Daemon[],
  work: readonly Work[],
  rounds: number,
): Promise<Measured[]> {
  const measured = work.map(({ title }) => ({ title, rounds: [] as number[][] }));
  for (let round = 1; round <= rounds; round += 1) {
    for (const [index, { title, line }] of work.entries()) {
      const times: number[] = [];
      // Each is the first as often as the others.
      for (let turn = 0; turn < daemons.length; turn += 1) {
        const at = (round + turn) % daemons.length;
        const daemon = daemons[at];
        if (daemon) times[at] = await milliseconds(guest, daemon, line);
      }
      measured[index]?.rounds.push(times);
      console.error(`round ${round} of ${rounds}: ${title}: ${times.join(', ')} ms`);
    }
  }
  return measured;
}

async function milliseconds(guest: Guest, daemon: Daemon, line: string): Promise<number> {
  const text = await guest.run(`cd ${placeOf(daemon)} && ${line}`);
  if (!/^\d+$/.test(text)) throw new Error(`${daemon.name} gave ${JSON.stringify(text)} for ${line}`);
  return Number(text);
}

/** The median of the ratios of a column to the reference, round by round. */
export function ratioOf({ rounds }: Measured, column: number, reference: number): number {
  return median(rounds.map((times) => (times[column] ?? Number.NaN) / (times[reference] ?? Number.NaN)));
}

/** A Markdown table: medians, and the ratios of each other column to the reference. */
export function table(names: readonly string[], measured: readonly Measured[], reference: number): string {
  const header = ['', ...names.map((name) => `${name} (ms)`)];
  const lines = measured.map((row) => [
    row.title,
    ...names.map((_, column) => {
      const time = median(row.rounds.map((times) => times[column] ?? Number.NaN)).toFixed(0);
      return column === reference ? time : `${time} = ${ratioOf(row, column, reference).toFixed(2)} ×`;
    }),
  ]);
  return [header, header.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** The same for machines to read. */
export function summary(names: readonly string[], measured: readonly Measured[], reference: number): object[] {
  return measured.map((row) => ({
    title: row.title,
    names,
    rounds: row.rounds,
    ratios: names.map((_, column) => ratioOf(row, column, reference)),
  }));
}
