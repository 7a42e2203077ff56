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

/** Where a command's input comes from, where there is any. `undefined`: whoever has the `ProcessInput` writes it. */
export function sourceOf(stdin: StdinSource | undefined, input: string | Uint8Array | undefined): Readable | undefined {
  if (input !== undefined) return bytes(input);
  if (stdin === undefined || stdin === 'ignore' || stdin === 'pipe') return undefined;
  if (stdin === 'inherit') return process.stdin;
  if (typeof stdin === 'string' || stdin instanceof Uint8Array) return bytes(stdin);
  if (stdin instanceof Readable) return stdin;
  return Readable.from(stdin as AsyncIterable<string | Uint8Array>, { objectMode: true });
}

function bytes(content: string | Uint8Array): Readable {
  const whole = Buffer.from(content);
  return Readable.from(whole.length === 0 ? [] : [whole]);
}

/** Feeds `source` to `target`; gives what undoes that when the command has ended. `onError` hears when it fails. */
export function feed(source: Readable, target: ProcessInput, onError: (cause: unknown) => void): () => void {
  const onClose = (): void => {
    if (!source.readableEnded && !target.destroyed) onError(new Error('It was closed before its end'));
  };
  source.once('error', onError).once('close', onClose).pipe(target);
  return () => {
    source.off('error', onError).off('close', onClose).unpipe(target);
    // This process's own standard input is for whoever comes next; a stream that was given stays the giver's too.
    if (source === process.stdin) source.pause();
  };
}
