// The host's end of the command channel: the agent dials host port 1024, the host probes it with `:` and then sends commands, one at a
// time. What breaks (a timeout, an abort, a broken rule) closes the connection: the agent then kills the command and dials again.

import { MicroVMError } from '../errors.ts';
import { CommandConnection, type ExchangeLimits, notConnected } from './command-connection.ts';
import { CommandQueue } from './command-queue.ts';
import { type Reply, encodeCommand } from './frames.ts';
import type { ConnectionListener } from './guest-connections.ts';

/** The host port that the agent dials. */
export const COMMAND_PORT = 1024;

const MIB = 1024 * 1024;
/** Node makes 1 ms of a longer delay. */
const MAX_TIMER_MS = 2 ** 31 - 1;
const PROBE = Buffer.from(':');
const POWER_OFF = Buffer.from('\0poweroff');

export interface CommandChannelOptions {
  /** Largest command, stdout and stderr in bytes. @default 16 MiB */
  readonly maxFrameBytes?: number;
  /** Milliseconds the agent may take to take a command. @default 30000 */
  readonly sendTimeoutMs?: number;
  /** Milliseconds between two pieces of one reply. @default 30000 */
  readonly gapTimeoutMs?: number;
  /** Milliseconds the agent may take to answer the probe. @default 10000 */
  readonly probeTimeoutMs?: number;
}

export interface AcceptOptions {
  /** Milliseconds to wait for the agent. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

export interface RunOptions {
  /** Milliseconds for the command and its reply, not counting the wait in the queue. @default none */
  readonly timeoutMs?: number | undefined;
  /** Milliseconds to wait for the agent where it has to connect again first. @default 30000 */
  readonly acceptTimeoutMs?: number | undefined;
  /** Called when its turn has come and the agent is connected: from here on the command's time counts. */
  readonly onSend?: (() => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface CommandReply extends Reply {
  /** Milliseconds from sending the command to the last byte of the reply. */
  readonly durationMs: number;
}

/** What ends a wait for the agent, and with which error. */
interface Wait extends AcceptOptions {
  readonly gone: () => MicroVMError;
  /** As it was when the call began: a later one is not meant for it. */
  readonly interrupt: AbortSignal;
}

export class CommandChannel {
  readonly #listener: ConnectionListener;
  readonly #limits: ExchangeLimits;
  readonly #probeTimeoutMs: number;
  readonly #queue = new CommandQueue();
  /** Ends a wait for the agent, when the channel closes or the machine is told to power off. */
  #interrupt = new AbortController();
  #connection: CommandConnection | undefined;

  /** Takes over `listener`, which must be listening before the guest boots. */
  constructor(listener: ConnectionListener, options: CommandChannelOptions = {}) {
    this.#listener = listener;
    this.#limits = {
      maxFrameBytes: options.maxFrameBytes ?? 16 * MIB,
      sendTimeoutMs: options.sendTimeoutMs ?? 30_000,
      gapTimeoutMs: options.gapTimeoutMs ?? 30_000,
    };
    this.#probeTimeoutMs = options.probeTimeoutMs ?? 10_000;
  }

  /** Whether an agent is connected and has answered the probe. */
  get isConnected(): boolean {
    return this.#connection?.isOpen === true;
  }

  /**
   * Waits until an agent has connected and answered the probe. Does nothing when one has.
   * Rejects with `ERR_AGENT_NOT_CONNECTED` after `timeoutMs` and with `ERR_ABORTED` on `signal`.
   */
  async accept({ timeoutMs, signal }: AcceptOptions): Promise<void> {
    if (this.isConnected) return;
    const gone = (): MicroVMError => aborted('ERR_ABORTED', 'The wait for the agent was aborted', signal);
    const interrupt = this.#interrupt.signal;
    await this.#inTurn(signal, gone, () => this.#connect({ timeoutMs, signal, gone, interrupt }));
  }

  /** Sends the probe under a timeout of its own. Rejects when there is no connection or no right answer. */
  async probe(timeoutMs: number = this.#probeTimeoutMs): Promise<void> {
    await this.#inTurn(undefined, notConnected, () => this.#probe(this.#connection, timeoutMs));
  }

  /**
   * Runs one command line and gives its reply, whatever the exit code. Where the connection is gone, waits for the agent to dial again.
   * On timeout, abort or a broken rule the connection is closed, at which the agent kills the command.
   */
  async run(command: string | Uint8Array, options: RunOptions = {}): Promise<CommandReply> {
    const { timeoutMs, acceptTimeoutMs = 30_000, onSend, signal } = options;
    const bytes = Buffer.from(command);
    encodeCommand(bytes, this.#limits.maxFrameBytes);
    const gone = (): MicroVMError => aborted('ERR_EXEC_ABORTED', 'The command was aborted', signal);
    const interrupt = this.#interrupt.signal;
    return this.#inTurn(signal, gone, async () => {
      const connection = await this.#connect({ timeoutMs: acceptTimeoutMs, signal, gone, interrupt });
      const hasTimeout = timeoutMs !== undefined && timeoutMs <= MAX_TIMER_MS;
      const timeout = hasTimeout ? { ms: timeoutMs, error: () => execTimedOut(timeoutMs) } : undefined;
      onSend?.();
      const started = performance.now();
      const reply = await connection.exchange(bytes, { ...this.#limits, timeout, signal });
      return { ...reply, durationMs: performance.now() - started };
    });
  }

  /** Asks the agent to sync and power off; resolves when it has agreed. Commands that run or wait reject. Call it once. */
  async powerOff({ timeoutMs, signal }: AcceptOptions): Promise<void> {
    const gone = (): MicroVMError => aborted('ERR_ABORTED', 'The wait for the agent was aborted', signal);
    const stopping = new MicroVMError('ERR_MACHINE_EXITED', 'The machine was stopped');
    this.#queue.close(stopping);
    this.#interrupt.abort(stopping);
    this.#interrupt = new AbortController();
    if (this.#connection?.isBusy) this.#connection.close(stopping);
    const connection = await this.#connect({ timeoutMs, signal, gone, interrupt: this.#interrupt.signal });
    const timeout = { ms: timeoutMs, error: () => powerOffTimedOut(timeoutMs) };
    try {
      await connection.exchange(POWER_OFF, { ...this.#limits, timeout, signal });
    } catch (error) {
      if (signal?.aborted && error === signal.reason) throw gone();
      if (!isHangUp(error)) throw error;
    }
    // The agent goes as soon as it sees that its answer was taken.
    connection.close();
  }

  /** Closes connection and listener. Calls that run, wait or come later reject with `reason`. */
  async close(reason: MicroVMError = notConnected()): Promise<void> {
    this.#queue.close(reason);
    this.#interrupt.abort(reason);
    this.#connection?.close(reason);
    await this.#listener.close();
  }

  async #inTurn<T>(signal: AbortSignal | undefined, gone: () => MicroVMError, work: () => Promise<T>): Promise<T> {
    try {
      const leave = await this.#queue.enter(signal);
      try {
        return await work();
      } finally {
        leave();
      }
    } catch (error) {
      if (signal?.aborted && error === signal.reason) throw gone();
      throw error;
    }
  }

  /** The connection there is, or the next one that answers the probe. */
  async #connect({ timeoutMs, signal, gone, interrupt }: Wait): Promise<CommandConnection> {
    if (interrupt.aborted) throw interrupt.reason;
    if (this.#connection?.isOpen) return this.#connection;
    const waiting = new AbortController();
    let lastFailure: unknown;
    const timer = setTimeout(
      () => waiting.abort(neverConnected(timeoutMs, lastFailure)),
      Math.min(timeoutMs, MAX_TIMER_MS),
    );
    const onAbort = (): void => waiting.abort(gone());
    const onInterrupt = (): void => waiting.abort(interrupt.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    interrupt.addEventListener('abort', onInterrupt, { once: true });
    if (signal?.aborted) onAbort();
    try {
      for (;;) {
        const connection = new CommandConnection(await this.#listener.accept(waiting.signal));
        try {
          await this.#probe(connection, this.#probeTimeoutMs, waiting.signal);
          this.#connection = connection;
          return connection;
        } catch (error) {
          // An agent that hung up without a word gave up this connection before we saw it; it dials again.
          if (!isHangUp(error) || connection.receivedBytes > 0) throw error;
          lastFailure = error;
        }
      }
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      interrupt.removeEventListener('abort', onInterrupt);
    }
  }

  async #probe(connection: CommandConnection | undefined, timeoutMs: number, signal?: AbortSignal): Promise<void> {
    if (!connection) throw notConnected();
    const timeout = { ms: timeoutMs, error: () => probeTimedOut(timeoutMs) };
    const { stdout, stderr, exitCode } = await connection.exchange(PROBE, { ...this.#limits, timeout, signal });
    if (exitCode === 0 && stdout.length === 0 && stderr.length === 0) return;
    const answer = `exit code ${exitCode}, ${stdout.length} and ${stderr.length} bytes of output`;
    const error = new MicroVMError('ERR_CHANNEL_PROTOCOL', `The agent answered the probe with ${answer}`);
    connection.close(error);
    throw error;
  }
}

function isHangUp(error: unknown): boolean {
  if (!(error instanceof MicroVMError)) return false;
  return error.code === 'ERR_CHANNEL_SHORT_READ' || error.code === 'ERR_CHANNEL_WRITE_ZERO';
}

function aborted(
  code: 'ERR_ABORTED' | 'ERR_EXEC_ABORTED',
  message: string,
  signal: AbortSignal | undefined,
): MicroVMError {
  return new MicroVMError(code, message, { cause: signal?.reason });
}

function execTimedOut(ms: number): MicroVMError {
  return new MicroVMError('ERR_EXEC_TIMEOUT', `The command did not end within ${ms} ms`);
}

function probeTimedOut(ms: number): MicroVMError {
  return new MicroVMError('ERR_CHANNEL_TIMEOUT', `The agent did not answer the probe within ${ms} ms`);
}

function powerOffTimedOut(ms: number): MicroVMError {
  return new MicroVMError('ERR_CHANNEL_TIMEOUT', `The agent did not answer the power-off command within ${ms} ms`);
}

function neverConnected(ms: number, cause: unknown): MicroVMError {
  return new MicroVMError('ERR_AGENT_NOT_CONNECTED', `The guest's agent did not connect within ${ms} ms`, {
    ...(cause !== undefined && { cause }),
  });
}
