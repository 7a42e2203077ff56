// What changes in the guest's files, as `node:fs/promises` tells it. One request of the agent API whose answer goes on.

import type { ClientHttp2Stream } from 'node:http2';
import { MicroVMError } from '../errors.ts';
import { type Deferred, deferred } from '../host/deferred.ts';
import { aborted } from './aborted.ts';
import { type AgentApi, destroy } from './agent-api.ts';
import { fileError } from './file-error.ts';
import { query } from './file-streams.ts';

const MAX_QUEUE = 2048;
/** A line holds one name of a file, escaped. */
const MAX_LINE_CHARACTERS = 128 * 1024;

export interface WatchOptions {
  /**
   * Watch all folders below, too, and those that come. Symbolic links are not followed.
   * @default false
   */
  readonly recursive?: boolean | undefined;
  /** Ends the watch: the iteration throws an `AbortError`. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Events that wait for a reader.
   * @default 2048
   */
  readonly maxQueue?: number | undefined;
  /**
   * What is done when more come, or when the guest's own queue was full: drop them, with a process warning; or end the
   * iteration with `ERR_WATCH_OVERFLOW`.
   * @default 'ignore'
   */
  readonly overflow?: 'ignore' | 'throw' | undefined;
}

/** A change. */
export interface WatchEvent {
  /** `'rename'` for a name that has come or gone, `'change'` for content and attributes. */
  readonly eventType: 'rename' | 'change';
  /** Relative to what is watched; of a file that is watched itself its own name. */
  readonly filename: string;
}

/** Events as they come. Leaving the loop ends the watch. */
export interface GuestWatcher extends AsyncIterableIterator<WatchEvent> {
  /** Resolves when the guest watches: what changes later is told. Rejects when it cannot. */
  readonly ready: Promise<void>;
  return(): Promise<IteratorReturnResult<undefined>>;
  [Symbol.asyncIterator](): this;
}

/** See `GuestFiles.watch`. */
export function watch(api: AgentApi, path: string, options: WatchOptions): GuestWatcher {
  return new Watcher(api, path, options);
}

class Watcher implements GuestWatcher {
  readonly ready: Promise<void>;
  readonly #path: string;
  readonly #options: WatchOptions;
  readonly #queue: WatchEvent[] = [];
  readonly #readers: Deferred<IteratorResult<WatchEvent, undefined>>[] = [];
  #stream: ClientHttp2Stream | undefined;
  #isOver = false;
  /** Why it ended; told once, behind the events that came before. */
  #failure: { readonly error: unknown } | undefined;
  #hasWarned = false;

  constructor(api: AgentApi, path: string, options: WatchOptions) {
    this.#path = path;
    this.#options = options;
    const ready = deferred<void>();
    this.ready = ready.promise;
    // Whoever reads hears of it, too.
    ready.promise.catch(() => {});
    void this.#follow(api, ready);
  }

  next(): Promise<IteratorResult<WatchEvent, undefined>> {
    const event = this.#queue.shift();
    if (event) return Promise.resolve({ done: false, value: event });
    if (this.#failure) {
      const { error } = this.#failure;
      this.#failure = undefined;
      return Promise.reject(error);
    }
    if (this.#isOver) return Promise.resolve({ done: true, value: undefined });
    const reader = deferred<IteratorResult<WatchEvent, undefined>>();
    this.#readers.push(reader);
    return reader.promise;
  }

  return(): Promise<IteratorReturnResult<undefined>> {
    this.#queue.length = 0;
    this.#end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async #follow(api: AgentApi, ready: Deferred<void>): Promise<void> {
    const { signal, recursive } = this.#options;
    const abort = (): void => this.#end({ error: signal && aborted(signal) });
    try {
      if (signal?.aborted) throw aborted(signal);
      signal?.addEventListener('abort', abort, { once: true });
      const parameters = query({ path: this.#path, recursive: recursive ? 'true' : undefined });
      const stream = await api.open('GET', `/v1/watch?${parameters}`);
      this.#stream = stream;
      if (this.#isOver) return destroy(stream);
      stream.end();
      try {
        await api.answerTo(stream);
        ready.resolve();
        await this.#read(stream);
        throw new Error('The agent ended the watch');
      } catch (error) {
        throw await api.explain(error, stream);
      }
    } catch (error) {
      const failure = { error: fileError(error, 'watch', this.#path) };
      // An end that was asked for came first.
      ready.reject(this.#failure?.error ?? failure.error);
      this.#end(failure);
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  async #read(stream: ClientHttp2Stream): Promise<void> {
    stream.setEncoding('utf8');
    let rest = '';
    for await (const text of stream as AsyncIterable<string>) {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#take(line);
      if (rest.length > MAX_LINE_CHARACTERS) throw notAnEvent();
    }
  }

  #take(line: string): void {
    if (this.#isOver) return;
    const event = eventOf(line);
    if (event === 'overflow') return this.#overflow("the guest's own queue was full");
    const reader = this.#readers.shift();
    if (reader) return reader.resolve({ done: false, value: event });
    const { maxQueue = MAX_QUEUE } = this.#options;
    if (this.#queue.length >= maxQueue) return this.#overflow(`${maxQueue} wait for a reader`);
    this.#queue.push(event);
  }

  #overflow(why: string): void {
    const message = `Events of ${this.#path} were lost: ${why}`;
    if (this.#options.overflow === 'throw')
      return this.#end({ error: new MicroVMError('ERR_WATCH_OVERFLOW', message) });
    if (!this.#hasWarned) process.emitWarning(message, { code: 'ERR_WATCH_OVERFLOW' });
    this.#hasWarned = true;
  }

  #end(failure?: { readonly error: unknown }): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#failure = failure;
    if (this.#stream && !this.#stream.closed) destroy(this.#stream);
    for (const reader of this.#readers.splice(0)) {
      const outcome = this.next();
      outcome.then(reader.resolve, reader.reject);
    }
  }
}

function eventOf(line: string): WatchEvent | 'overflow' {
  let told: unknown;
  try {
    told = JSON.parse(line);
  } catch {
    throw notAnEvent();
  }
  const { eventType, filename, overflow } = Object(told) as Readonly<Record<string, unknown>>;
  if (overflow === true) return 'overflow';
  if ((eventType !== 'rename' && eventType !== 'change') || typeof filename !== 'string') throw notAnEvent();
  return { eventType, filename };
}

function notAnEvent(): MicroVMError {
  return new MicroVMError('ERR_AGENT_PROTOCOL', 'The agent did not send an event of a file where it should');
}
