// Standard input for a program: bytes go along with the run, a stream goes through a socket.

import { once } from 'node:events';
import { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { loadBinding } from '../native.ts';

/** A piece of input. */
type Chunk = string | Uint8Array;

/** What a program can be given to read. */
export type Input = Chunk | Iterable<Chunk> | AsyncIterable<Chunk> | { readonly inherit: true };

/** Input on its way to a program. */
export interface OpenInput {
  /** What the addon gets of it. */
  readonly binding: { readonly input?: Uint8Array; readonly inputFd?: number };
  /** Called when the addon has what it was given. */
  passed(): void;
  /** Called when the program has ended: what it did not read is dropped. Gives the source's failure, if it had one. */
  end(): Promise<{ readonly error: unknown } | undefined>;
}

/** Opens the input; `failed` is called when its source fails while the program runs. */
export function openInput(input: Input | undefined, failed: () => void): OpenInput {
  const nothing = { passed: () => {}, end: async () => undefined };
  if (input === undefined) return { binding: {}, ...nothing };
  if (typeof input === 'string' || input instanceof Uint8Array)
    return { binding: { input: Buffer.from(input) }, ...nothing };
  if ('inherit' in input) return { binding: { inputFd: 0 }, ...nothing };
  return feed(input as Iterable<Chunk> | AsyncIterable<Chunk>, failed);
}

function feed(input: Iterable<Chunk> | AsyncIterable<Chunk>, failed: () => void): OpenInput {
  const { socketPair, closeDescriptor } = loadBinding();
  const [near, far] = socketPair();
  const socket = new Socket({ fd: near, readable: false, writable: true });
  const source = input instanceof Readable ? input : Readable.from(input, { objectMode: true });
  const ended = new AbortController();
  let failure: { readonly error: unknown } | undefined;
  // A program that reads no more, or has ended, is no failure; one of the source is.
  const onFailure = (error: unknown): void => {
    if (failure || ended.signal.aborted) return;
    failure = { error };
    failed();
  };
  // Ahead of the pipeline's own listener, which closes the socket: a program that sees that end may be done with it before the
  // pipeline tells why.
  source.once('error', onFailure);
  const fed = pipeline(source, socket, { signal: ended.signal }).catch((error: unknown) => {
    if (source.errored === error) onFailure(error);
  });
  return {
    binding: { inputFd: far },
    passed: () => closeDescriptor(far),
    end: async () => {
      ended.abort();
      await fed;
      if (!socket.closed) await once(socket, 'close');
      return failure;
    },
  };
}
