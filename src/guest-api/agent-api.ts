// The connection to the guest's agent API: HTTP/2 with prior knowledge over a stream to guest port 1025. One connection carries
// all requests; it is made when the first one comes and again after it broke. The guest is not trusted: whatever it answers, or
// does not, a request comes to its end, as an error with a code.

import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2';
import type { Duplex } from 'node:stream';
import { MicroVMError } from '../errors.ts';
import { deferred } from '../host/deferred.ts';
import { Patience } from '../host/patience.ts';
import { waitAtMost } from '../host/wait-at-most.ts';
import { unanswered } from '../vsock/connect-errors.ts';
import type { Transport } from '../vsock/transport.ts';
import { AgentRefusal, refusalIn, refusalOf } from './refusal.ts';

/** The guest port on which the agent serves its API. */
export const API_PORT = 1025;

/** Bytes that the guest may send ahead of a reader, for each request: what one request can cost here. */
const STREAM_WINDOW = 1024 * 1024;
/** Node takes the bytes of all requests off the connection as they come: this only lets many of them be under way. */
const CONNECTION_WINDOW = 8 * 1024 * 1024;
/** A little more than the agent sends at once, with the eight bytes before output: one frame instead of two. */
const FRAME_BYTES = 64 * 1024 + 8;
/** Node refuses new requests of a session that holds more than so many megabytes. */
const SESSION_MEMORY_MB = 4096;
/** A refusal is a short text. */
const MAX_REFUSAL_BYTES = 64 * 1024;

export interface AgentApiOptions {
  /** Milliseconds the agent may take to begin an answer, and to go on with one. @default 60000 */
  readonly answerTimeoutMs?: number;
  /** Milliseconds to wait for the connection. @default 30000 */
  readonly connectTimeoutMs?: number;
  /** Holds these limits up while the guest is paused. @default one of its own, which nobody holds */
  readonly patience?: Patience;
  /** Milliseconds that the owner has to tell, by `close`, why a connection broke. @default 0, as nobody would */
  readonly lossGraceMs?: number;
}

/** What is known of a request. */
interface Request {
  readonly session: ClientHttp2Session;
  /** Why its answer broke off that had begun. */
  refusal?: Error;
}

/** The longest delay of a timer: another one counts. */
const LONGEST_MS = 2 ** 31 - 1;

/** An answer that has begun: its body is the stream's. */
export interface Answer {
  readonly stream: ClientHttp2Stream;
  readonly headers: IncomingHttpHeaders;
}

export class AgentApi {
  readonly #transport: Pick<Transport, 'dial'>;
  readonly #answerTimeoutMs: number;
  readonly #connectTimeoutMs: number;
  readonly #patience: Patience;
  #session: Promise<ClientHttp2Session> | undefined;
  #socket: Duplex | undefined;
  #closedBy: MicroVMError | undefined;
  readonly #dialing = new AbortController();
  readonly #requests = new WeakMap<ClientHttp2Stream, Request>();
  readonly #lossGraceMs: number;
  readonly #closing = deferred<void>();

  constructor(transport: Pick<Transport, 'dial'>, options: AgentApiOptions = {}) {
    this.#transport = transport;
    this.#answerTimeoutMs = options.answerTimeoutMs ?? 60_000;
    this.#connectTimeoutMs = options.connectTimeoutMs ?? 30_000;
    this.#patience = options.patience ?? new Patience();
    this.#lossGraceMs = options.lossGraceMs ?? 0;
  }

  /**
   * Opens a request. Nothing is sent of its body; `answerTo` waits for the answer.
   *
   * @throws {MicroVMError} `ERR_VSOCK_REFUSED` where the guest has no such API, or why the connection cannot be had
   */
  async open(method: string, path: string): Promise<ClientHttp2Stream> {
    const session = await this.#connected();
    if (this.#closedBy) throw this.#closedBy;
    const headers: OutgoingHttpHeaders = { ':method': method, ':path': path };
    let stream: ClientHttp2Stream;
    try {
      stream = session.request(headers, { endStream: false });
    } catch (cause) {
      throw lost(cause);
    }
    // Whoever uses the stream hears of its end by `close`; without any listener an error would end this process.
    stream.on('error', () => {});
    const request: Request = { session };
    stream.once('trailers', (trailers) => {
      const refusal = refusalIn(trailers);
      if (refusal) request.refusal = refusal;
    });
    this.#requests.set(stream, request);
    return stream;
  }

  /**
   * Waits for the head of an answer, so many milliseconds; `Infinity` for one that comes behind a body of any length. A
   * refusal is thrown.
   *
   * @throws {AgentRefusal | MicroVMError}
   */
  async answerTo(stream: ClientHttp2Stream, ms: number = this.#answerTimeoutMs): Promise<Answer> {
    const met = Number.isFinite(ms) ? this.expect(stream, 'did not answer', ms) : () => {};
    try {
      const headers = await head(stream);
      const status = Number(headers[':status']);
      if (status === 200 || status === 204) return { stream, headers };
      throw await this.#refusal(stream, status);
    } catch (error) {
      throw await this.explain(error, stream);
    } finally {
      met();
    }
  }

  /**
   * Gives the agent so long to do what is waited for; then the stream ends with `ERR_AGENT_TIMEOUT`. What it gives back tells
   * that it was done.
   *
   * @param late - what the agent did not do, behind its name
   */
  expect(stream: ClientHttp2Stream, late: string, ms: number = this.#answerTimeoutMs): () => void {
    return this.#patience.limit(ms, () =>
      destroy(stream, new MicroVMError('ERR_AGENT_TIMEOUT', `The agent ${late} within ${ms} ms`)),
    );
  }

  /**
   * The pieces of a body that has no reason to stand still: each has the time of an answer, which what is done with them does
   * not count to. Throws what ended the stream, the refusal behind it, and `ERR_AGENT_TIMEOUT`.
   *
   * @param what - what it is, for the message
   */
  async *pieces(stream: ClientHttp2Stream, what: string): AsyncGenerator<Buffer> {
    const late = `did not go on with ${what}`;
    let met = this.expect(stream, late);
    try {
      for await (const piece of stream as AsyncIterable<Buffer>) {
        met();
        yield piece;
        met = this.expect(stream, late);
      }
    } finally {
      met();
    }
    this.throwRefusal(stream);
  }

  /** Throws why an answer broke off that had begun, once its body has ended; does nothing where it is whole. */
  throwRefusal(stream: ClientHttp2Stream): void {
    const { refusal } = this.#requests.get(stream) ?? {};
    if (refusal) throw refusal;
  }

  /**
   * All of a body, by its pieces.
   *
   * @throws {AgentRefusal | MicroVMError} `ERR_AGENT_TIMEOUT`, `ERR_AGENT_PROTOCOL` for a longer one, `ERR_AGENT_LOST`
   */
  async text(stream: ClientHttp2Stream, maxBytes: number): Promise<string> {
    const pieces: Buffer[] = [];
    let bytes = 0;
    try {
      for await (const piece of this.pieces(stream, 'an answer')) {
        bytes += piece.length;
        if (bytes > maxBytes) {
          throw new MicroVMError(
            'ERR_AGENT_PROTOCOL',
            `The agent sent more than ${maxBytes} bytes where it should not`,
          );
        }
        pieces.push(piece);
      }
    } catch (error) {
      throw await this.explain(error, stream);
    }
    return Buffer.concat(pieces).toString();
  }

  async #refusal(stream: ClientHttp2Stream, status: number): Promise<Error> {
    return (
      refusalOf(await this.text(stream, MAX_REFUSAL_BYTES)) ??
      new MicroVMError('ERR_AGENT_PROTOCOL', `The agent answered with status ${status} and no reason`)
    );
  }

  /** A request without a body, for its effect. */
  async post(path: string): Promise<void> {
    const stream = await this.open('POST', path);
    stream.end();
    await this.answerTo(stream);
    stream.resume();
  }

  /** Why a request ended early, as an error with a code. */
  async explain(error: unknown, stream: ClientHttp2Stream): Promise<unknown> {
    if (this.#closedBy) return this.#closedBy;
    if (error instanceof MicroVMError || error instanceof AgentRefusal) return error;
    const errored: unknown = stream.errored;
    if (errored instanceof MicroVMError) return errored;
    // A connection breaks with its machine, too, and how that ended is known a little later.
    if (this.#requests.get(stream)?.session.destroyed) await waitAtMost(this.#closing.promise, this.#lossGraceMs);
    return this.#closedBy ?? lost(error ?? errored);
  }

  /** Ends the connection, and with it all that the agent does for it. Requests that run or come later reject with `reason`. */
  close(reason: MicroVMError = new MicroVMError('ERR_AGENT_LOST', 'The connection to the agent was closed')): void {
    this.#closedBy ??= reason;
    this.#closing.resolve();
    this.#dialing.abort(reason);
    void this.#session?.then(
      (session) => {
        session.destroy();
        // The session would wait until an agent that does not read has taken what was written.
        this.#socket?.destroy();
      },
      () => {},
    );
  }

  #connected(): Promise<ClientHttp2Session> {
    if (this.#closedBy) return Promise.reject(this.#closedBy);
    if (this.#session) return this.#session;
    const opening = this.#connect();
    this.#session = opening;
    const forget = (): void => {
      if (this.#session === opening) this.#session = undefined;
    };
    opening.then((session) => {
      session.once('close', forget).once('goaway', forget);
      if (session.closed || session.destroyed) forget();
    }, forget);
    return opening;
  }

  async #connect(): Promise<ClientHttp2Session> {
    const timeoutMs = this.#connectTimeoutMs;
    const late = new AbortController();
    const met = this.#patience.limit(timeoutMs, () => late.abort(unanswered(API_PORT, timeoutMs)));
    const signal = AbortSignal.any([late.signal, this.#dialing.signal]);
    let socket: Duplex;
    try {
      socket = await this.#transport.dial(API_PORT, { timeoutMs: LONGEST_MS, signal });
    } catch (error) {
      throw this.#closedBy ?? (late.signal.aborted ? late.signal.reason : error);
    } finally {
      met();
    }
    this.#socket = socket;
    // The session listens only while it lives.
    socket.on('error', () => {});
    const session = connect('http://microvm', {
      createConnection: () => socket,
      // What callers write ahead of slow commands counts, for all requests together.
      maxSessionMemory: SESSION_MEMORY_MB,
      settings: { enablePush: false, initialWindowSize: STREAM_WINDOW, maxFrameSize: FRAME_BYTES },
    });
    // Each request tells of it; nobody else has to.
    session.on('error', () => {});
    // A connection that breaks ends the session; Node alone would wait for it to be used once more.
    // One that the guest has half closed is of no use either.
    const end = (): void => session.destroy();
    socket.once('end', end).once('close', end).resume();
    try {
      await once(session, 'connect');
    } catch (cause) {
      throw this.#closedBy ?? lost(cause);
    }
    session.setLocalWindowSize(CONNECTION_WINDOW);
    return session;
  }
}

/** Ends a stream early: the agent ends what belongs to it. */
export function destroy(stream: ClientHttp2Stream, error?: Error): void {
  stream.close(constants.NGHTTP2_CANCEL);
  stream.destroy(error);
}

function head(stream: ClientHttp2Stream): Promise<IncomingHttpHeaders> {
  return new Promise((resolve, reject) => {
    const onResponse = (headers: IncomingHttpHeaders): void => {
      stream.off('close', onClose);
      resolve(headers);
    };
    const onClose = (): void => {
      stream.off('response', onResponse);
      reject(stream.errored ?? new Error('The stream ended without an answer'));
    };
    if (stream.closed || stream.destroyed) return onClose();
    stream.once('response', onResponse).once('close', onClose);
  });
}

/** A number in a header of the agent's. */
export function wholeNumber(value: unknown, max: number): number {
  const number = typeof value === 'string' && /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (number <= max) return number;
  throw new MicroVMError('ERR_AGENT_PROTOCOL', `The agent sent ${JSON.stringify(value)} where a number belongs`);
}

function lost(cause: unknown): MicroVMError {
  return new MicroVMError('ERR_AGENT_LOST', 'The connection to the agent broke', { cause });
}
