// One connection of the agent. It carries one exchange at a time; anything that breaks the rules ends it.

import type { Duplex } from 'node:stream';
import { MicroVMError, errnoOf } from '../errors.ts';
import { encodeCommand, type Reply, ReplyParser } from './frames.ts';

export interface ExchangeLimits {
  /** Largest command, stdout and stderr in bytes. */
  readonly maxFrameBytes: number;
  /** Milliseconds the agent may take to take the command. */
  readonly sendTimeoutMs: number;
  /** Milliseconds between two pieces of the reply. */
  readonly gapTimeoutMs: number;
}

export interface ExchangeOptions extends ExchangeLimits {
  /** Milliseconds from the start until the reply is whole, and what to reject with then. */
  readonly timeout: { readonly ms: number; readonly error: () => MicroVMError } | undefined;
  readonly signal: AbortSignal | undefined;
}

interface Exchange {
  readonly parser: ReplyParser;
  isSent: boolean;
  reply: Reply | undefined;
  readonly progress: () => void;
  readonly fail: (error: unknown) => void;
}

export class CommandConnection {
  readonly #stream: Duplex;
  #exchange: Exchange | undefined;
  #isOpen = true;
  #receivedBytes = 0;

  constructor(stream: Duplex) {
    this.#stream = stream;
    stream.on('data', (piece: Buffer) => this.#onData(piece));
    stream.on('end', () => this.#onEnd());
    stream.on('close', () => this.#onEnd());
    stream.on('error', (error) => this.#onEnd(error));
    stream.resume();
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Whether a command is being sent or its reply awaited. */
  get isBusy(): boolean {
    return this.#exchange !== undefined;
  }

  /** Bytes of replies that came over this connection. */
  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** Sends a command and waits for its reply. When it rejects, the connection is closed. One call at a time. */
  exchange(command: Uint8Array, options: ExchangeOptions): Promise<Reply> {
    const { maxFrameBytes, sendTimeoutMs, gapTimeoutMs, timeout, signal } = options;
    return new Promise((resolve, reject) => {
      if (!this.#isOpen) return reject(notConnected());
      const frame = encodeCommand(command, maxFrameBytes);
      const settle = (): void => {
        this.#exchange = undefined;
        clearTimeout(sendTimer);
        clearTimeout(gapTimer);
        clearTimeout(timeoutTimer);
        signal?.removeEventListener('abort', abort);
      };
      const fail = (error: unknown): void => {
        settle();
        this.close();
        reject(error);
      };
      const abort = (): void => fail(signal?.reason);
      const exchange: Exchange = {
        parser: new ReplyParser(maxFrameBytes),
        isSent: false,
        reply: undefined,
        progress: () => {
          if (exchange.isSent && exchange.reply) {
            settle();
            resolve(exchange.reply);
          } else if (exchange.parser.bytes > 0) {
            clearTimeout(gapTimer);
            gapTimer = setTimeout(() => fail(gapTimedOut(gapTimeoutMs)), gapTimeoutMs);
          }
        },
        fail,
      };
      let gapTimer: NodeJS.Timeout | undefined;
      const sendTimer = setTimeout(() => fail(sendTimedOut(sendTimeoutMs)), sendTimeoutMs);
      const timeoutTimer = timeout && setTimeout(() => fail(timeout.error()), timeout.ms);
      if (signal?.aborted) return abort();
      signal?.addEventListener('abort', abort, { once: true });

      this.#exchange = exchange;
      this.#stream.write(frame, (cause) => {
        if (this.#exchange !== exchange) return;
        if (cause) return fail(writeZero(cause));
        exchange.isSent = true;
        clearTimeout(sendTimer);
        exchange.progress();
      });
    });
  }

  /** Closes the connection. A running exchange rejects with `reason`. */
  close(reason: MicroVMError = notConnected()): void {
    this.#isOpen = false;
    this.#stream.destroy();
    this.#exchange?.fail(reason);
  }

  #onData(piece: Buffer): void {
    // Words that nobody asked for: the two ends no longer agree on where a reply begins.
    if (!this.#exchange) return this.close();
    this.#receivedBytes += piece.length;
    try {
      const reply = this.#exchange.parser.push(piece);
      if (reply) this.#exchange.reply = reply;
      this.#exchange.progress();
    } catch (error) {
      this.#exchange.fail(error);
    }
  }

  #onEnd(cause?: Error): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#stream.destroy();
    const exchange = this.#exchange;
    exchange?.fail(exchange.isSent ? shortRead(exchange.parser.bytes, cause) : writeZero(cause));
  }
}

export function notConnected(): MicroVMError {
  return new MicroVMError('ERR_CHANNEL_NOT_CONNECTED', 'The command channel has no connection to the guest');
}

function sendTimedOut(ms: number): MicroVMError {
  return new MicroVMError('ERR_CHANNEL_TIMEOUT', `The guest did not take the command within ${ms} ms`);
}

function gapTimedOut(ms: number): MicroVMError {
  return new MicroVMError('ERR_CHANNEL_TIMEOUT', `The guest paused for ${ms} ms inside a reply`);
}

function shortRead(bytes: number, cause?: Error): MicroVMError {
  const how = cause ? `was lost (${errnoOf(cause) ?? cause.message})` : 'was closed by the guest';
  return new MicroVMError('ERR_CHANNEL_SHORT_READ', `The connection ${how} after ${bytes} bytes of a reply`, {
    ...(cause && { cause }),
  });
}

function writeZero(cause?: Error): MicroVMError {
  const detail = cause ? ` (${errnoOf(cause) ?? cause.message})` : '';
  return new MicroVMError('ERR_CHANNEL_WRITE_ZERO', `The guest takes no more bytes of the command${detail}`, {
    ...(cause && { cause }),
  });
}
