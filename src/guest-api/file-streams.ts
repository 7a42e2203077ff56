// Contents of files on their way, each one request of the agent API.

import type { ClientHttp2Stream } from 'node:http2';
import { Writable, type WritableOptions } from 'node:stream';
import { type AgentApi, destroy } from './agent-api.ts';
import { fileError } from './file-error.ts';

/** The bytes of a file, as they are asked for. Leaving early ends the request. */
export async function* readContent(
  api: AgentApi,
  path: string,
  start: number | undefined,
  end: number | undefined,
): AsyncGenerator<Buffer> {
  let stream: ClientHttp2Stream | undefined;
  let isHandedOn = false;
  try {
    stream = await api.open('GET', `/v1/file?${query({ path, start, end })}`);
    stream.end();
    await api.answerTo(stream);
    for await (const piece of stream as AsyncIterable<Buffer>) {
      isHandedOn = true;
      yield piece;
      isHandedOn = false;
    }
  } catch (error) {
    // What the reader throws in, such as its abort, is its own.
    if (isHandedOn) throw error;
    throw fileError(stream ? api.explain(error, stream) : error, 'open', path);
  } finally {
    if (stream && !stream.readableEnded) destroy(stream);
  }
}

/** A writable whose bytes become a request's body; it finishes when the guest has done with them what it should. */
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
    const stream = this.#stream;
    if (!stream || stream.destroyed) return this.#settle(callback);
    stream.write(chunk, (error) => (error ? this.#settle(callback) : callback()));
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#stream?.end();
    this.#settle(callback);
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
