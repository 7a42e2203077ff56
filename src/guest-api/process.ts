// A process in the guest: one request of the agent API. Its body is the process's standard input, the answer's body both outputs,
// the answer's trailers how it ended.

import type { ClientHttp2Stream, IncomingHttpHeaders } from 'node:http2';
import { MicroVMError } from '../errors.ts';
import { signalName } from '../host/signals.ts';
import { type AgentApi, destroy, wholeNumber } from './agent-api.ts';
import { OutputFrameParser, type OutputKind } from './output-frames.ts';

/** What is to be run, as the agent takes it (docs/agent-api.md). */
export interface ProcessSpecification {
  readonly argv: readonly string[];
  readonly script?: string | undefined;
  readonly env: Readonly<Record<string, string>>;
  readonly cwd?: string | undefined;
  readonly user?: string | undefined;
  readonly group?: string | undefined;
  readonly terminal?: { readonly columns: number; readonly rows: number } | undefined;
  readonly detached?: boolean | undefined;
}

/** How a process ended: by a code of its own, or by a signal. */
export interface ProcessExit {
  readonly code: number | undefined;
  readonly signal: NodeJS.Signals | undefined;
  readonly signalNumber: number | undefined;
  /** Whether the guest's kernel killed it, or a process that it had started, for want of memory. */
  readonly oomKilled: boolean;
}

/** The most that a specification may have, in bytes; the agent takes no more. */
const MAX_SPECIFICATION_BYTES = 16 * 1024 * 1024;

export interface ProcessEvents {
  /** A piece of output; false asks for no more until `resume`. */
  readonly onOutput: (kind: OutputKind, piece: Buffer) => boolean;
}

/** The head of the request: the specification behind its length. Throws `ERR_COMMAND_TOO_LARGE`. */
export function encodeSpecification(specification: ProcessSpecification): Buffer {
  const text = Buffer.from(JSON.stringify(specification));
  if (text.length > MAX_SPECIFICATION_BYTES) {
    throw new MicroVMError(
      'ERR_COMMAND_TOO_LARGE',
      `The command has ${text.length} bytes; the agent takes ${MAX_SPECIFICATION_BYTES}`,
      { hint: 'Put large data into a file, or give it by standard input.' },
    );
  }
  const head = Buffer.allocUnsafe(4 + text.length);
  head.writeUInt32BE(text.length);
  text.copy(head, 4);
  return head;
}

/** A process that runs. */
export class RemoteProcess {
  readonly pid: number;
  /** Resolves when it has ended and all of its output was handed on; rejects where that cannot be known any more. */
  readonly exit: Promise<ProcessExit>;
  readonly #api: AgentApi;
  readonly #stream: ClientHttp2Stream;
  readonly #id: number;

  private constructor(api: AgentApi, stream: ClientHttp2Stream, headers: IncomingHttpHeaders, events: ProcessEvents) {
    this.#api = api;
    this.#stream = stream;
    this.#id = wholeNumber(headers['process'], Number.MAX_SAFE_INTEGER);
    this.pid = wholeNumber(headers['pid'], 2 ** 31 - 1);
    this.exit = follow(api, stream, events);
  }

  /** Waits until the agent has started what `stream` asks for. */
  static async started(api: AgentApi, stream: ClientHttp2Stream, events: ProcessEvents): Promise<RemoteProcess> {
    const { headers } = await api.answerTo(stream);
    try {
      return new RemoteProcess(api, stream, headers, events);
    } catch (error) {
      destroy(stream);
      throw error;
    }
  }

  /** Output is wanted again. */
  resume(): void {
    this.#stream.resume();
  }

  /** Signals the process group that the process leads. */
  async signal(number: number): Promise<void> {
    await this.#api.post(`/v1/processes/${this.#id}/signal?number=${number}`);
  }

  /** Asks it and all that it has started to end; what is left after so many milliseconds is killed. */
  async terminate(graceMs: number): Promise<void> {
    await this.#api.post(`/v1/processes/${this.#id}/terminate?grace=${graceMs}`);
  }

  /** Tells its terminal a new size. */
  async resize(columns: number, rows: number): Promise<void> {
    await this.#api.post(`/v1/processes/${this.#id}/size?columns=${columns}&rows=${rows}`);
  }
}

function follow(api: AgentApi, stream: ClientHttp2Stream, events: ProcessEvents): Promise<ProcessExit> {
  return new Promise((resolve, reject) => {
    let trailers: IncomingHttpHeaders | undefined;
    let isKnown = false;
    const parser = new OutputFrameParser((kind, piece) => {
      if (!events.onOutput(kind, piece) && !trailers) stream.pause();
    });
    stream.on('trailers', (fields: IncomingHttpHeaders) => {
      trailers ??= fields;
      // All of it is here, no more than the stream's window: taken now, it outlives a connection that its reader is slower than.
      stream.resume();
    });
    stream.on('data', (piece: Buffer) => {
      try {
        parser.push(piece);
      } catch (error) {
        destroy(stream, error as Error);
      }
    });
    stream.once('end', () => {
      try {
        resolve(exitOf(trailers, parser));
        isKnown = true;
        // Standard input that nobody took any more.
        stream.end();
      } catch (error) {
        if (stream.errored || stream.rstCode !== 0) return;
        destroy(stream, error as Error);
      }
    });
    stream.once('close', () => {
      if (!isKnown) void api.explain(undefined, stream).then(reject);
    });
  });
}

/** The status is never guessed: what is not told in full is an error. */
function exitOf(trailers: IncomingHttpHeaders | undefined, parser: OutputFrameParser): ProcessExit {
  if (!trailers) throw new MicroVMError('ERR_AGENT_PROTOCOL', 'The agent did not tell how the command ended');
  if (!parser.isBetweenFrames)
    throw new MicroVMError('ERR_AGENT_PROTOCOL', "The command's output ended within a frame");
  const { 'exit-code': code, 'exit-signal': signal, 'oom-kills': kills } = trailers;
  if ((code === undefined) === (signal === undefined)) {
    throw new MicroVMError('ERR_AGENT_PROTOCOL', 'The agent did not tell one way in which the command ended');
  }
  const oomKilled = kills !== undefined && wholeNumber(kills, Number.MAX_SAFE_INTEGER) > 0;
  if (code !== undefined)
    return { code: wholeNumber(code, 255), signal: undefined, signalNumber: undefined, oomKilled };
  const number = wholeNumber(signal, 64);
  return { code: undefined, signal: signalName(number), signalNumber: number, oomKilled };
}
