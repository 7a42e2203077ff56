// What the set-up tells its reader: one line a step, with its time, and failures that say what to do next.

/** A failure of the set-up that a person can act on. */
export class SetUpError extends Error {
  name = 'SetUpError';

  /**
   * @param {string} message what went wrong
   * @param {{hint?: string, cause?: unknown}} [options]
   */
  constructor(message, { hint, cause } = {}) {
    super(message, { cause });
    this.hint = hint;
  }
}

const SKIPPED = Symbol('nothing to do');

/** Returned by a step that found everything in place. @param {string} [detail] */
export function nothingToDo(detail = '') {
  return { [SKIPPED]: true, detail };
}

/** Returned by a step that did something. @param {string} [detail] */
export function done(detail = '') {
  return { [SKIPPED]: false, detail };
}

/** @param {number} milliseconds */
export function formatTime(milliseconds) {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 60_000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${Math.floor(milliseconds / 60_000)} min ${Math.round((milliseconds % 60_000) / 1000)} s`;
}

/** A line that announces something before it is done. @param {string} text */
export function say(text) {
  console.log(`  → ${text}`);
}

/**
 * Runs one step and prints its outcome and its time.
 * @template T
 * @param {string} title
 * @param {() => T | Promise<T>} work
 */
export async function step(title, work) {
  const started = performance.now();
  let outcome;
  try {
    outcome = await work();
  } catch (error) {
    console.error(`  ✗ ${title}`);
    throw explain(error);
  }
  const mark = outcome?.[SKIPPED] ? '·' : '✓';
  const detail = outcome?.detail ? `: ${outcome.detail}` : '';
  console.log(`  ${mark} ${title}${detail} (${formatTime(performance.now() - started)})`);
  return outcome;
}

/** Gives errors of the operating system the hint that they lack. @param {unknown} error */
function explain(error) {
  if (error instanceof SetUpError) return error;
  if (error instanceof Error && 'code' in error) {
    if (error.code === 'ENOSPC') return noSpace(error);
    if (error.code === 'EACCES' || error.code === 'EROFS') {
      return new SetUpError(error.message, {
        cause: error,
        hint: 'Make the folder writable for this user, or choose another cache folder with MICROVM_CACHE.',
      });
    }
  }
  return error;
}

/** @param {unknown} cause */
export function noSpace(cause) {
  return new SetUpError('The disk is full', {
    cause,
    hint: 'The set-up needs about 2 GiB for the build and 500 MiB for the guest; the cache folder can be moved with MICROVM_CACHE.',
  });
}
