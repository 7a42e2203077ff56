// Limits of time that stand still while the one who is waited for stands still: a paused guest answers nobody. They stand
// still as well while this process does, stopped or starved: what came meanwhile is read before anything is too late.

/** A limit is waited for in so many steps, between which the process reads what has come. */
const STEPS = 8;

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
  readonly #stepMs: number;
  #leftMs: number;
  #since = 0;
  #timer: NodeJS.Timeout | undefined;
  readonly #expire: () => void;

  constructor(ms: number, expire: () => void) {
    this.#stepMs = ms / STEPS;
    this.#leftMs = ms;
    this.#expire = expire;
  }

  run(): void {
    this.#since = performance.now();
    this.#timer = setTimeout(() => this.#step(), this.#thisStepMs);
  }

  stop(): void {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#leftMs -= Math.min(this.#thisStepMs, performance.now() - this.#since);
  }

  get #thisStepMs(): number {
    return Math.min(this.#stepMs, this.#leftMs);
  }

  /** However late it comes, no more than the step counts. */
  #step(): void {
    this.#leftMs -= this.#thisStepMs;
    if (this.#leftMs > 0) this.run();
    else this.#expire();
  }
}
