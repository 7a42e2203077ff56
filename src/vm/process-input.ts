// Standard input of a command that may not have started yet: what is written waits for it, and no faster than it reads.

import type { ClientHttp2Stream } from 'node:http2';
import { Readable, Writable } from 'node:stream';
import type { StdinSource } from './exec-options.ts';

/** A writable that hands everything to a stream which comes later. */
export class ProcessInput extends Writable {
  #target: ClientHttp2Stream | undefined;
  #begin: (() => void) | undefined;
  #isDecided = false;
  /** Whether the caller writes it. */
  isTaken = false;

  override _construct(callback: () => void): void {
    // Which of the two comes first is not for us to say.
    if (this.#isDecided) callback();
    else this.#begin = callback;
  }

  /** From now on it is written to `target`, whose begin has been written. */
  attach(target: ClientHttp2Stream): void {
    this.#target = target;
    // When the command has ended nobody takes anything any more, which is no failure of whoever writes.
    target.once('close', () => this.destroy());
    this.#decide();
  }

  /** The command was not started, or has ended. */
  abandon(): void {
    this.#decide();
    this.destroy();
  }

  #decide(): void {
    this.#isDecided = true;
    this.#begin?.();
    this.#begin = undefined;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    const target = this.#target;
    if (!target || target.destroyed || target.writableEnded) return callback();
    target.write(chunk, () => callback());
  }

  override _final(callback: () => void): void {
    this.#target?.end();
    callback();
  }
}

/** Whether a command gets no input at all, only its end. */
export function isNothing(stdin: StdinSource | undefined, input: string | Uint8Array | undefined): boolean {
  return input === undefined ? stdin === undefined || stdin === 'ignore' : input.length === 0;
}

/**
 * Where a command's input comes from. It is taken hold of before the command begins: what goes wrong with it until then is heard
 * as well.
 */
export class InputSource {
  readonly #source: Readable;
  /** A stream that was given stays the giver's; one that was made here goes with the command. */
  readonly #isOwn: boolean;
  readonly #onError: (cause: unknown) => void;
  #target: ProcessInput | undefined;

  private constructor(source: Readable, isOwn: boolean, onError: (cause: unknown) => void) {
    this.#source = source;
    this.#isOwn = isOwn;
    this.#onError = onError;
    source.on('error', this.#fail).on('close', this.#close);
    if (source.errored) onError(source.errored);
    else if (source.destroyed) this.#close();
  }

  /**
   * Takes hold of the input; `undefined` where there is none, or whoever has the `ProcessInput` writes it.
   *
   * @param onError - hears why it failed
   */
  static of(
    stdin: StdinSource | undefined,
    input: string | Uint8Array | undefined,
    onError: (cause: unknown) => void,
  ): InputSource | undefined {
    const given = input ?? stdin;
    if (input === undefined && (stdin === undefined || stdin === 'ignore' || stdin === 'pipe')) return undefined;
    if (input === undefined && stdin === 'inherit') return new InputSource(process.stdin, false, onError);
    if (given instanceof Readable && !given.readableObjectMode) return new InputSource(given, false, onError);
    return new InputSource(made(given as Exclude<StdinSource, Readable>), true, onError);
  }

  /** Feeds it to `target`. */
  pipe(target: ProcessInput): void {
    this.#target = target;
    this.#source.pipe(target);
  }

  /** The command has ended, or never began. */
  release(): void {
    const source = this.#source;
    if (this.#target) source.unpipe(this.#target);
    source.off('close', this.#close).off('error', this.#fail);
    // What an iterator says once nobody wants its items is nobody's failure.
    if (this.#isOwn) source.on('error', () => {}).destroy();
    // This process's own standard input is for whoever comes next.
    if (source === process.stdin) source.pause();
  }

  readonly #fail = (cause: unknown): void => this.#onError(cause);

  readonly #close = (): void => {
    if (!this.#source.readableEnded && !this.#target?.destroyed)
      this.#onError(new Error('It was closed before its end'));
  };
}

function made(given: string | Uint8Array | Iterable<unknown> | AsyncIterable<unknown>): Readable {
  if (typeof given !== 'string' && !(given instanceof Uint8Array)) return Readable.from(checked(given));
  const whole = Buffer.from(given as string);
  return Readable.from(whole.length === 0 ? [] : [whole]);
}

/** By hand rather than as a generator, which would not pass an end on while it waits for the next item. */
function checked(items: Iterable<unknown> | AsyncIterable<unknown>): AsyncIterable<string | Uint8Array> {
  return {
    [Symbol.asyncIterator]() {
      const iterator = Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]();
      return {
        async next() {
          const { done, value } = await iterator.next();
          if (done) return { done, value: undefined };
          if (typeof value === 'string' || value instanceof Uint8Array) return { done: false, value };
          throw new TypeError(
            `It gave a value of type ${value === null ? 'null' : typeof value}, neither text nor bytes`,
          );
        },
        async return() {
          await iterator.return?.();
          return { done: true, value: undefined };
        },
      };
    },
  };
}
