// One output of a command: kept for the result up to a limit, handed to a stream when somebody has taken one.

import { Readable } from 'node:stream';
import { stripVTControlCharacters } from 'node:util';

/** Bytes kept for messages, whether or not the output is kept. */
const TAIL_BYTES = 4 * 1024;
const TAIL_LINES = 10;

export interface OutputOptions {
  /** Whether it is kept. */
  readonly keep: boolean;
  /** Bytes that are kept at most. */
  readonly maxBytes: number;
  /** Called once when there is more. */
  readonly onExcess: () => void;
  /** Called when the stream takes more again. */
  readonly onDrain: () => void;
}

export class ProcessOutput {
  readonly #options: OutputOptions;
  #pieces: Buffer[] = [];
  #bytes = 0;
  #tail: Buffer = Buffer.alloc(0);
  #stream: Readable | undefined;
  #isFull = false;
  #end: { readonly error: Error | undefined } | undefined;

  constructor(options: OutputOptions) {
    this.#options = options;
  }

  /** The output as a stream, from its begin where it is kept, else from now on. */
  get stream(): Readable {
    if (this.#stream) return this.#stream;
    const stream = new Readable({
      read: () => {
        this.#isFull = false;
        this.#options.onDrain();
      },
    });
    // One who only looks at the end of the command need not listen; who reads hears of it.
    stream.on('error', () => {});
    this.#stream = stream;
    for (const piece of this.#pieces) this.#isFull = !stream.push(piece);
    if (this.#end) finish(stream, this.#end.error);
    return stream;
  }

  /** Whether it can take more without growing. */
  get isReady(): boolean {
    return !this.#isFull;
  }

  /** Takes a piece. */
  push(piece: Buffer): void {
    this.#tail = Buffer.concat([this.#tail, piece.subarray(-TAIL_BYTES)]).subarray(-TAIL_BYTES);
    if (this.#stream && !this.#stream.destroyed) this.#isFull = !this.#stream.push(piece);
    if (!this.#options.keep) return;
    const room = this.#options.maxBytes - this.#bytes;
    const kept = piece.subarray(0, room);
    // A small piece would hold the large buffer that it was read into.
    if (kept.length > 0) this.#pieces.push(kept.length * 2 < kept.buffer.byteLength ? Buffer.from(kept) : kept);
    this.#bytes += kept.length;
    // Thousands of small pieces would cost more than their bytes.
    if (this.#pieces.length >= 256 && this.#bytes < this.#pieces.length * 4096) {
      this.#pieces = [Buffer.concat(this.#pieces)];
    }
    if (piece.length > room) this.#options.onExcess();
  }

  /** There is no more. */
  end(error?: Error): void {
    if (this.#end) return;
    this.#end = { error };
    if (this.#stream) finish(this.#stream, error);
  }

  /** What was kept. */
  get bytes(): Buffer {
    return Buffer.concat(this.#pieces);
  }

  /** The last lines, safe to show on a terminal. */
  get tail(): string {
    const text = stripVTControlCharacters(this.#tail.toString())
      // oxlint-disable-next-line no-control-regex -- control characters are what is taken out
      .replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '')
      .trimEnd();
    return text.split('\n').slice(-TAIL_LINES).join('\n');
  }
}

function finish(stream: Readable, error: Error | undefined): void {
  if (error) stream.destroy(error);
  else stream.push(null);
}
