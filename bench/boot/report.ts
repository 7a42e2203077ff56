// The figures of a run, as a table for people and as plain data.

import { median } from '../median.ts';
import type { Round } from './round.ts';

export interface Row {
  readonly name: string;
  readonly rounds: readonly Round[];
}

type Figure = keyof Round;

const FIGURES: readonly {
  readonly figure: Figure;
  readonly title: string;
  readonly unit: string;
  readonly scale: number;
}[] = [
  { figure: 'firstLineMs', title: 'to the first line of PID 1', unit: 'ms', scale: 1 },
  { figure: 'firstExecMs', title: 'to the first answer', unit: 'ms', scale: 1 },
  { figure: 'memoryBytes', title: 'memory beyond guest RAM', unit: 'MiB', scale: 1 << 20 },
];

/** Times as their median; memory as the most of all rounds, for later ones find what earlier ones gave back. */
function figureOf(row: Row, figure: Figure): number {
  const values = row.rounds.map((round) => round[figure]);
  return figure === 'memoryBytes' ? Math.max(...values) : median(values);
}

/** A Markdown table, with each row's ratio to the last, which is the reference. */
export function table(rows: readonly Row[]): string {
  const reference = rows.at(-1);
  const header = ['', ...FIGURES.map(({ title, unit }) => `${title} (${unit})`)];
  const lines = rows.map((row) => [
    row.name,
    ...FIGURES.map(({ figure, scale }) => {
      const value = figureOf(row, figure);
      const ratio = reference && row !== reference ? ` = ${(value / figureOf(reference, figure)).toFixed(2)} ×` : '';
      return `${(value / scale).toFixed(1)}${ratio}`;
    }),
  ]);
  return [header, header.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** The same for machines to read. */
export function summary(rows: readonly Row[]): object {
  return rows.map((row) => ({
    name: row.name,
    rounds: row.rounds,
    figures: Object.fromEntries(FIGURES.map(({ figure }) => [figure, figureOf(row, figure)])),
  }));
}
