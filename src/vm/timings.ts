// How long the parts of a start took.

import type { BootPhase } from '../config/options.ts';

/** Milliseconds of each phase from `create()` to the agent's first answer. */
export interface BootTimings extends Readonly<Record<BootPhase, number>> {
  /** Choosing the accelerator; once per process it measures. */
  readonly choose: number;
  /** Finding and checking the kernel. */
  readonly kernel: number;
  /** Building the initramfs, or finding it in the cache. */
  readonly initramfs: number;
  /** Making the machine and loading the kernel. */
  readonly machine: number;
  /** From the first instruction to the agent's answer. */
  readonly boot: number;
  /** All of it. */
  readonly total: number;
}

/** Measures phases that follow one another. */
export class PhaseClock {
  readonly #started = performance.now();
  readonly #onPhase: ((phase: BootPhase) => void) | undefined;
  readonly #phases: Record<BootPhase, number> = { choose: 0, kernel: 0, initramfs: 0, machine: 0, boot: 0 };

  constructor(onPhase?: (phase: BootPhase) => void) {
    this.#onPhase = onPhase;
  }

  async time<T>(phase: BootPhase, work: () => T | Promise<T>): Promise<T> {
    this.#onPhase?.(phase);
    const started = performance.now();
    try {
      return await work();
    } finally {
      this.#phases[phase] = performance.now() - started;
    }
  }

  timings(): BootTimings {
    return { ...this.#phases, total: performance.now() - this.#started };
  }
}
