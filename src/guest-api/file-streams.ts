// Contents of files on their way, each one request of the agent API.

import type { ClientHttp2Stream } from 'node:http2';
import { Writable } from 'node:stream';
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

export interface FileWriterOptions {
  readonly start: number | undefined;
  readonly mode: number | undefined;
  readonly flag: string | undefined;
}

/** A writable whose bytes become a file's content; it finishes when the guest has written them. */
export class FileWriter extends Writable {
  readonly #api: AgentApi;
  readonly #path: string;
  readonly #options: FileWriterOptions;
  #stream: ClientHttp2Stream | undefined;
  #answered: Promise<unknown> = Promise.resolve();

  constructor(api: AgentApi, path: string, options: FileWriterOptions, signal: AbortSignal | undefined) {
    super({ ...(signal && { signal }) });
    this.#api = api;
    this.#path = path;
    this.#options = options;
  }

  override _construct(callback: (error?: Error | null) => void): void {
    void settle(this.#open(), callback, (error) => this.#explain(error));
  }

  async #open(): Promise<void> {
    const { start, mode, flag } = this.#options;
    const path = `/v1/file?${query({ path: this.#path, start, mode, flag })}`;
    const stream = await this.#api.open('PUT', path);
    if (this.destroyed) return destroy(stream);
    this.#stream = stream;
    this.#answered = this.#api.answerTo(stream, Number.POSITIVE_INFINITY);
    // A file that cannot be opened is told while it is being written.
    this.#answered.catch((error: unknown) => this.destroy(this.#explain(error)));
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
    void settle(taken(), callback, (error) => this.#explain(error));
  }

  #explain(error: unknown): Error {
    return fileError(error, 'open', this.#path) as Error;
  }
}

/** Tells a callback how a promise has settled. */
async function settle(
  work: Promise<unknown>,
  callback: (error?: Error | null) => void,
  explain: (error: unknown) => Error,
): Promise<void> {
  let failure: Error | undefined;
  try {
    await work;
  } catch (error) {
    failure = explain(error);
  }
  callback(failure);
}

function query(parameters: Readonly<Record<string, string | number | undefined>>): string {
  return Object.entries(parameters)
    .filter((entry): entry is [string, string | number] => entry[1] !== undefined)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
    .join('&');
}
