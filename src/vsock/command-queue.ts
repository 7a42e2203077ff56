// One command at a time: each call waits for its turn, and may give up waiting.

import type { MicroVMError } from '../errors.ts';

interface Waiter {
  readonly start: () => void;
  readonly giveUp: (error: unknown) => void;
}

export class CommandQueue {
  readonly #waiters = new Set<Waiter>();
  #isBusy = false;
  #closedBy: MicroVMError | undefined;

  /** Waits for a turn; the function it gives ends the turn. Rejects with the signal's reason, or when the queue is closed. */
  enter(signal?: AbortSignal): Promise<() => void> {
    return new Promise((resolve, reject) => {
      if (this.#closedBy) return reject(this.#closedBy);
      if (signal?.aborted) return reject(signal.reason);
      const settle = (): void => {
        this.#waiters.delete(waiter);
        signal?.removeEventListener('abort', abort);
      };
      const waiter: Waiter = {
        start: () => {
          settle();
          this.#isBusy = true;
          resolve(() => this.#next());
        },
        giveUp: (error) => {
          settle();
          reject(error);
        },
      };
      const abort = (): void => waiter.giveUp(signal?.reason);
      if (!this.#isBusy) return waiter.start();
      this.#waiters.add(waiter);
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  #next(): void {
    this.#isBusy = false;
    const [waiter] = this.#waiters;
    waiter?.start();
  }

  /** Rejects all that wait, and all that come later, with `error`. The turn that is running ends by itself. */
  close(error: MicroVMError): void {
    this.#closedBy ??= error;
    for (const waiter of [...this.#waiters]) waiter.giveUp(error);
  }
}
