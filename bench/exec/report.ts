// The figures of the benchmark, as a table for people.

import { median } from '../median.ts';

/** Where the guest has the program of `guest.c`. */
export const GUEST_PROGRAM = '/tmp/bench-guest';

/** Something that was measured, with its reference in the same run. */
export interface Figure {
  readonly title: string;
  /** Undefined where the target is a plain number. */
  readonly referenceTitle: string | undefined;
  readonly unit: string;
  /** Medians. */
  readonly ours: number;
  readonly reference: number | undefined;
  /** What the target is about. */
  readonly ratio: number;
  readonly target: { readonly atMost: number } | { readonly atLeast: number };
  readonly samples: number;
}

/** One measurement of ours, and one of its reference beside it. */
export interface Pair {
  readonly ours: number;
  readonly reference: number;
}

/** The medians of pairs, and of what `ratio` makes of each. */
export function medians(
  pairs: readonly Pair[],
  ratio: (pair: Pair) => number,
): Pair & Pick<Figure, 'ratio' | 'samples'> {
  return {
    ours: median(pairs.map(({ ours }) => ours)),
    reference: median(pairs.map(({ reference }) => reference)),
    ratio: median(pairs.map(ratio)),
    samples: pairs.length,
  };
}

/** Whether the target is met. */
export function isMet({ ratio, target }: Figure): boolean {
  return 'atMost' in target ? ratio <= target.atMost : ratio >= target.atLeast;
}

/** A Markdown table. */
export function table(figures: readonly Figure[]): string {
  const header = ['', 'measured', 'reference', '', 'ratio', 'target', ''];
  const lines = figures.map((figure) => {
    const { title, referenceTitle, unit, ours, reference, ratio, target } = figure;
    return [
      title,
      `${digits(ours)} ${unit}`,
      reference === undefined ? '' : `${digits(reference)} ${unit}`,
      referenceTitle ?? '',
      reference === undefined ? '' : `${ratio.toFixed(2)} ×`,
      'atMost' in target ? `≤ ${target.atMost}` : `≥ ${target.atLeast}`,
      isMet(figure) ? 'met' : 'missed',
    ];
  });
  return [header, header.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

function digits(value: number): string {
  return value.toFixed(value < 100 ? 2 : 0);
}
