// Limits of time that stand still while the one who is waited for stands still: a paused guest answers nobody.

/** Timers that can be held up all together. */
export class Patience {
  readonly #limits = new Set<Limit>();
  #isHeld = false;

  /** Calls `expire` after so many milliseconds, not counting those that are held up. Gives what ends it before. */
  limit(ms: number, expire: () => void): () => void {
    const limit = new Limit(ms, () => {
      this.#limits.delete(limit);
      expire();
    });
    this.#limits.add(limit);
    if (!this.#isHeld) limit.run();
    return () => {
      this.#limits.delete(limit);
      limit.stop();
    };
  }

  /** No limit is reached from now on. Calling it again does nothing. */
  hold(): void {
    this.#isHeld = true;
    for (const limit of this.#limits) limit.stop();
  }

  /** All go on where they were. */
  release(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    for (const limit of this.#limits) limit.run();
  }
}

class Limit {
  #leftMs: number;
  #since = 0;
  #timer: NodeJS.Timeout | undefined;
  readonly #expire: () => void;

  constructor(ms: number, expire: () => void) {
    this.#leftMs = ms;
    this.#expire = expire;
  }

  run(): void {
    this.#since = performance.now();
    this.#timer = setTimeout(this.#expire, this.#leftMs);
  }

  stop(): void {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#leftMs = Math.max(0, this.#leftMs - (performance.now() - this.#since));
  }
}
