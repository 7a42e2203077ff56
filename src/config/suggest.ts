// "Did you mean": the candidate that a mistyped word is nearest to.

/**
 * The candidate nearest to `word`, or undefined where none is near: at most one edit in three
 * letters, and one edit is always allowed. An edit inserts, deletes, replaces a letter or swaps
 * two neighbours.
 */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const limit = Math.max(1, Math.floor(word.length / 3));
  let best: { readonly candidate: string; readonly edits: number } | undefined;
  for (const candidate of candidates) {
    const edits = distance(word.toLowerCase(), candidate.toLowerCase());
    if (edits <= limit && (best === undefined || edits < best.edits)) best = { candidate, edits };
  }
  return best?.candidate;
}

// Damerau's distance in its restricted form, row by row.
function distance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const replaced = (last[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      const edits = Math.min(replaced, (last[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1);
      const swapped = a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      const viaSwap = swapped && row > 1 && column > 1 ? (beforeLast[column - 2] ?? 0) + 1 : edits;
      current.push(Math.min(edits, viaSwap));
    }
    beforeLast = last;
    last = current;
  }
  return last[b.length] ?? 0;
}
