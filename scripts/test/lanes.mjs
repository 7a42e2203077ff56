// Work that is done side by side, a fixed number at a time.

/**
 * Calls `work` for each item, `count` at a time in the order of the items; gives the results in that order.
 * A failure ends the whole when the calls that run have ended.
 * @template T, R
 * @param {readonly T[]} items
 * @param {number} count
 * @param {(item: T) => Promise<R>} work
 * @returns {Promise<R[]>}
 */
export async function inLanes(items, count, work) {
  /** @type {R[]} */
  const results = [];
  const waiting = items.entries();
  const lane = async () => {
    for (const [index, item] of waiting) results[index] = await work(item);
  };
  const ended = await Promise.allSettled(Array.from({ length: count }, lane));
  for (const end of ended) if (end.status === 'rejected') throw end.reason;
  return results;
}
