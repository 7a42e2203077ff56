// bootTimeout: one limit for starting the machine and for the wait for its agent.

import { MicroVMError } from '../errors.ts';
import { followSignals } from '../host/follow-signals.ts';

const PRINTED = 'See consoleTail for what the guest printed last; bootTimeout raises the limit.';
// Our kernels boot quietly: a healthy one says nothing for a while, a stuck one nothing at all.
const SILENT =
  "The guest printed nothing. With cmdline: 'earlyprintk=ttyS0 ignore_loglevel' its kernel tells each step, which shows " +
  'whether it is stuck (it may not suit the processor) or slow; bootTimeout raises the limit.';

export class BootLimit {
  readonly #timeoutMs: number;
  #startedAt = 0;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** The time begins. */
  start(): void {
    this.#startedAt = performance.now();
  }

  /** Milliseconds that are left, at least one. */
  get remainingMs(): number {
    return Math.max(1, Math.ceil(this.#startedAt + this.#timeoutMs - performance.now()));
  }

  /**
   * Does work that ends when its signal is aborted, which the caller's signal and the end of the time do.
   *
   * @throws {MicroVMError} `ERR_BOOT_TIMEOUT` at the end of the time, else what the work throws
   */
  async within<T>(work: (signal: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(this.exceeded()), this.remainingMs);
    const either = followSignals(signal, limit.signal);
    try {
      return await work(either.signal);
    } catch (error) {
      throw either.signal.aborted && !signal?.aborted ? limit.signal.reason : error;
    } finally {
      clearTimeout(timer);
      either.release();
    }
  }

  /** The error of a guest that did not make it. */
  exceeded(cause?: unknown, consoleTail?: string): MicroVMError {
    if (cause === undefined) {
      return new MicroVMError('ERR_BOOT_TIMEOUT', `The machine did not start within ${this.#timeoutMs} ms`, {
        hint: 'This host may be overloaded; bootTimeout raises the limit.',
      });
    }
    return new MicroVMError('ERR_BOOT_TIMEOUT', `The guest's agent did not connect within ${this.#timeoutMs} ms`, {
      cause,
      consoleTail,
      hint: consoleTail ? PRINTED : SILENT,
    });
  }
}
