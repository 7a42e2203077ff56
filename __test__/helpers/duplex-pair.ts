// Two streams in memory: what is written to one is read from the other.

import { Duplex } from 'node:stream';

class End extends Duplex {
  #other: End | undefined;
  #resume: (() => void) | undefined;

  join(other: End): void {
    this.#other = other;
  }

  override _read(): void {
    const resume = this.#resume;
    this.#resume = undefined;
    resume?.();
  }

  accept(chunk: Buffer, done: () => void): void {
    if (this.push(chunk)) done();
    else this.#resume = done;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: () => void): void {
    if (!this.#other || this.#other.destroyed) return callback();
    this.#other.accept(chunk, callback);
  }

  override _final(callback: () => void): void {
    this.#other?.push(null);
    callback();
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    if (this.#other && !this.#other.destroyed) process.nextTick(() => this.#other?.destroy());
    callback(error);
  }
}

/** A connected pair. */
export function duplexPair(): [Duplex, Duplex] {
  const near = new End();
  const far = new End();
  near.join(far);
  far.join(near);
  return [near, far];
}
