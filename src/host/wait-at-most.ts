import { Patience } from './patience.ts';

/** Nobody holds these up. */
const patience = new Patience();

/**
 * Waits for a promise, but no longer than so many milliseconds in which this process ran; tells whether it settled. What it
 * settled to is not looked at.
 */
export async function waitAtMost(promise: Promise<unknown>, ms: number): Promise<boolean> {
  let met: (() => void) | undefined;
  const late = new Promise<boolean>((resolve) => {
    met = patience.limit(ms, () => resolve(false));
  });
  const settled = promise.then(
    () => true,
    () => true,
  );
  try {
    return await Promise.race([settled, late]);
  } finally {
    met?.();
  }
}
