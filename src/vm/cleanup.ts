// What has to be undone when a machine ends or cannot be made, newest first.

/** Something to undo: `sync` is what can be done of it when the process exits, also while `run` is under way. */
export interface CleanUp {
  readonly run: () => Promise<unknown>;
  readonly sync: () => void;
}

const live = new Set<CleanUpStack>();
let hooked = false;

/** Steps to undo. From its creation to the end of `run` it is also undone when the process exits. */
export class CleanUpStack {
  readonly #steps: CleanUp[] = [];
  #running: Promise<void> | undefined;

  constructor() {
    live.add(this);
    if (hooked) return;
    hooked = true;
    // process.exit() runs no destructor and no clean-up hook of the addon.
    process.on('exit', () => {
      for (const stack of live) stack.#runSync();
    });
  }

  add(step: CleanUp): void {
    this.#steps.push(step);
  }

  /** Undoes everything. Each step is tried; the first failure is thrown in the end. Later calls wait for the first. */
  run(): Promise<void> {
    this.#running ??= this.#unwind();
    return this.#running;
  }

  async #unwind(): Promise<void> {
    const failures: unknown[] = [];
    for (let step = this.#steps.at(-1); step; step = this.#steps.at(-1)) {
      try {
        await step.run();
      } catch (error) {
        failures.push(error);
      }
      // Only now: the process may exit while it is being undone, and then `sync` has to do the rest.
      this.#steps.splice(this.#steps.indexOf(step), 1);
    }
    live.delete(this);
    if (failures.length > 0) throw failures[0];
  }

  #runSync(): void {
    for (const step of this.#steps.toReversed()) {
      try {
        step.sync();
      } catch {
        // The process is ending: nobody is left to tell, and the next start sweeps what remains.
      }
    }
  }
}
