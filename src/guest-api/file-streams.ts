// Contents of files on their way, each one request of the agent API.

import type { ClientHttp2Stream } from 'node:http2';
import { Readable, type ReadableOptions, Writable, type WritableOptions } from 'node:stream';
import { finished } from 'node:stream/promises';
import { type AgentApi, destroy } from './agent-api.ts';
import { fileError } from './file-error.ts';

/** So much of a body is handed to the connection at once: each has the time of an answer, however large the whole is. */
const PIECE_BYTES = 256 * 1024;

/** All of a short file that has no reason to stand still. */
export async function readShort(api: AgentApi, path: string, maxBytes: number): Promise<string> {
  try {
    const stream = await api.open('GET', `/v1/file?${query({ path })}`);
    await api.answerTo(stream.end());
    return await api.text(stream, maxBytes);
  } catch (error) {
    throw fileError(error, 'open', path);
  }
}

/** A readable of an answer's body. Once that has begun it may stand still as long as it likes: a FIFO does. */
export class AnswerBody extends Readable {
  readonly #api: AgentApi;
  readonly #request: string;
  readonly #explain: (error: unknown) => unknown;
  #stream: ClientHttp2Stream | undefined;
  #hasBegun = false;

  /** `request` is what is asked for by GET; `explain` makes the error of a refusal. */
  constructor(api: AgentApi, request: string, explain: (error: unknown) => unknown, options: ReadableOptions = {}) {
    super(options);
    this.#api = api;
    this.#request = request;
    this.#explain = explain;
  }

  override _read(): void {
    this.#stream?.resume();
    if (this.#hasBegun) return;
    this.#hasBegun = true;
    // Not by `_construct`: whoever gives up does not wait for the agent.
    this.#begin().catch((error: unknown) => this.destroy(this.#explain(error) as Error));
  }

  async #begin(): Promise<void> {
    const stream = await this.#api.open('GET', this.#request);
    if (this.destroyed) return destroy(stream);
    this.#stream = stream;
    await this.#api.answerTo(stream.end());
    stream.on('data', (piece: Buffer) => {
      if (!this.push(piece)) stream.pause();
    });
    // A stream whose connection breaks ends as if it were whole: it is destroyed before its `end`, a whole one behind it.
    let isWhole = false;
    stream.once('end', () => (isWhole = !stream.destroyed));
    try {
      await finished(stream, { writable: false });
      if (!isWhole) throw new Error('The stream ended before its time');
    } catch (error) {
      throw await this.#api.explain(error, stream);
    }
    this.#api.throwRefusal(stream);
    this.push(null);
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    if (this.#stream && !this.#stream.readableEnded) destroy(this.#stream);
    callback(error);
  }
}

/**
 * A writable whose bytes become a request's body; it finishes when the guest has done with them what it should. A guest that
 * takes nothing for the time of an answer is `ERR_AGENT_TIMEOUT`.
 */
export class RequestBody extends Writable {
  readonly #api: AgentApi;
  readonly #request: string;
  readonly #explain: (error: unknown) => unknown;
  #stream: ClientHttp2Stream | undefined;
  #answered: Promise<unknown> = Promise.resolve();

  /** `request` is what is PUT; `explain` makes the error of a refusal. */
  constructor(api: AgentApi, request: string, explain: (error: unknown) => unknown, options: WritableOptions = {}) {
    super(options);
    this.#api = api;
    this.#request = request;
    this.#explain = explain;
  }

  override _construct(callback: (error?: Error | null) => void): void {
    void settle(this.#open(), callback, this.#explain);
  }

  async #open(): Promise<void> {
    const stream = await this.#api.open('PUT', this.#request);
    if (this.destroyed) return destroy(stream);
    this.#stream = stream;
    this.#answered = this.#api.answerTo(stream, Number.POSITIVE_INFINITY);
    // A file that cannot be opened is told while it is being written.
    this.#answered.catch((error: unknown) => this.destroy(this.#explain(error) as Error));
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#send(chunk, callback);
  }

  /** Hands bytes on piece by piece, each in its time. */
  #send(bytes: Buffer, callback: (error?: Error | null) => void): void {
    const stream = this.#stream;
    if (!stream || stream.destroyed) return this.#settle(callback);
    const taken = this.#api.expect(stream, 'did not take what was written');
    stream.write(bytes.subarray(0, PIECE_BYTES), (error) => {
      taken();
      if (error) this.#settle(callback);
      else if (bytes.length > PIECE_BYTES) this.#send(bytes.subarray(PIECE_BYTES), callback);
      else callback();
    });
  }

  override _final(callback: (error?: Error | null) => void): void {
    const stream = this.#stream;
    stream?.end();
    const answered = stream && this.#api.expect(stream, 'did not tell that all was written');
    this.#settle((error) => {
      answered?.();
      callback(error);
    });
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    if (this.#stream && !this.#stream.closed) destroy(this.#stream);
    callback(error);
  }

  #settle(callback: (error?: Error | null) => void): void {
    const taken = async (): Promise<void> => {
      await this.#answered;
      this.#stream?.resume();
    };
    void settle(taken(), callback, this.#explain);
  }
}

/** Tells a callback how a promise has settled. */
async function settle(
  work: Promise<unknown>,
  callback: (error?: Error | null) => void,
  explain: (error: unknown) => unknown,
): Promise<void> {
  let failure: Error | undefined;
  try {
    await work;
  } catch (error) {
    failure = explain(error) as Error;
  }
  callback(failure);
}

/** Parameters of a request; those that are undefined are left out. */
export function query(parameters: Readonly<Record<string, string | number | undefined>>): string {
  return Object.entries(parameters)
    .filter((entry): entry is [string, string | number] => entry[1] !== undefined)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
    .join('&');
}
