// The guest's serial console as its owner sees it. The machine's end is always drained, for a console that nobody reads
// would stop the guest; what is kept is bounded, for a guest may print without end.

import { once } from 'node:events';
import { Duplex } from 'node:stream';
import { stripVTControlCharacters } from 'node:util';
import { waitAtMost } from '../host/wait-at-most.ts';

/** Bytes kept for errors. */
const TAIL_BYTES = 8 * 1024;
/** Bytes kept for a reader that is slow, or that comes later. */
const BACKLOG_BYTES = 256 * 1024;
/** Milliseconds that the output of a machine that has ended may take to arrive. */
const LAST_WORDS_MS = 1_000;

/**
 * The serial console: what the guest prints can be read, what is written is its input.
 *
 * Output is never lost to a reader that keeps up. One that falls behind by more than 256 KiB, or comes later, misses
 * the oldest part: `skippedBytes` counts it.
 */
export class GuestConsole extends Duplex {
  readonly #machine: Duplex;
  readonly #tail = new RecentBytes(TAIL_BYTES);
  readonly #backlog = new RecentBytes(BACKLOG_BYTES);
  readonly #onOutput: ((chunk: Uint8Array) => void) | undefined;
  #wanted = false;
  #ended = false;

  /** @internal */
  constructor(machine: Duplex, onOutput?: (chunk: Uint8Array) => void) {
    super({ allowHalfOpen: true });
    this.#machine = machine;
    this.#onOutput = onOutput;
    machine.on('data', (chunk: Buffer) => this.#receive(chunk));
    // The machine's end breaks when the machine does, which is told elsewhere.
    machine.on('error', () => {});
    machine.once('close', () => this.#finish());
  }

  /** How many bytes of output no reader has got or will get. */
  get skippedBytes(): number {
    return this.#backlog.droppedBytes;
  }

  /** The last lines of output, without control characters: safe to show on a terminal. */
  get tail(): string {
    return printable(this.#tail.peek().toString('utf8'));
  }

  override _read(): void {
    this.#wanted = true;
    this.#hand();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    // A machine that has ended takes no input: like a terminal that was hung up, it is dropped.
    if (this.#ended || this.#machine.destroyed) return callback();
    this.#machine.write(chunk, () => callback());
  }

  #receive(chunk: Buffer): void {
    this.#tail.add(chunk);
    if (!this.destroyed) this.#backlog.add(chunk);
    this.#hand();
    this.#tell(chunk);
  }

  #tell(chunk: Buffer): void {
    try {
      // A copy: what is kept must not change in the caller's hands.
      this.#onOutput?.(Uint8Array.from(chunk));
    } catch (error) {
      process.emitWarning(`onConsole threw, which does not stop the machine: ${String(error)}`, 'MicroVMWarning');
    }
  }

  #hand(): void {
    if (this.#wanted && this.#backlog.length > 0) this.#wanted = this.push(this.#backlog.take());
    if (this.#ended && this.#backlog.length === 0 && !this.destroyed) this.push(null);
  }

  #finish(): void {
    this.#ended = true;
    this.#hand();
    // A machine without a console has no use for input either.
    this.end();
  }
}

/** The console's tail, waited for: what a machine prints last may still be on its way when its end is known. */
export async function lastWords(vm: {
  readonly machine: { readonly console: Duplex };
  readonly console: GuestConsole;
}): Promise<string> {
  const { console } = vm.machine;
  if (!console.closed) await waitAtMost(once(console, 'close'), LAST_WORDS_MS);
  return vm.console.tail;
}

/** A byte queue that forgets its oldest part when it is full. */
class RecentBytes {
  readonly #limit: number;
  #chunks: Buffer[] = [];
  length = 0;
  droppedBytes = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  add(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.length += chunk.length;
    while (this.length > this.#limit) {
      const first = this.#chunks[0] as Buffer;
      const excess = Math.min(this.length - this.#limit, first.length);
      if (excess === first.length) this.#chunks.shift();
      else this.#chunks[0] = first.subarray(excess);
      this.length -= excess;
      this.droppedBytes += excess;
    }
    // Many small chunks would cost far more than their bytes.
    if (this.#chunks.length > 64) this.#chunks = [Buffer.concat(this.#chunks)];
  }

  peek(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  take(): Buffer {
    const bytes = this.peek();
    this.#chunks = [];
    this.length = 0;
    return bytes;
  }
}

function printable(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what is taken out
  return stripVTControlCharacters(text).replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '');
}
