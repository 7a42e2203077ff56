// The figures of the benchmark, as a table for people.

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
