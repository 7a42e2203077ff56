import type { ConnectionListener } from './unix.ts';

export interface CommandChannelOptions {
  /** Largest command, stdout and stderr in bytes. @default 16 MiB */
  readonly maxFrameBytes?: number;
  /** Milliseconds the agent may take to take a command. @default 30000 */
  readonly sendTimeoutMs?: number;
  /** Milliseconds between two pieces of one reply. @default 30000 */
  readonly gapTimeoutMs?: number;
  /** Milliseconds the agent may take to answer the probe. @default 5000 */
  readonly probeTimeoutMs?: number;
}

export interface RunOptions {
  /** Milliseconds from the start of the command (not counting the queue) until its first byte of reply. @default none */
  readonly timeoutMs?: number | undefined;
  /** Milliseconds to wait for the agent where it has to connect again first. @default 30000 */
  readonly acceptTimeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface CommandReply {
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  readonly exitCode: number;
  /** Milliseconds from sending the command to the last byte of the reply. */
  readonly durationMs: number;
}

/** The host's end of the command channel: one agent, one command at a time; calls queue. */
export class CommandChannel {
  constructor(_listener: ConnectionListener, _options: CommandChannelOptions = {}) {
    throw new Error('Not written yet');
  }

  /** Whether an agent is connected and has answered the probe. */
  get isConnected(): boolean {
    return false;
  }

  /**
   * Waits until the agent has connected and answered the probe. Does nothing when it is connected.
   * Rejects with `ERR_AGENT_NOT_CONNECTED` after `timeoutMs`, with `ERR_ABORTED` on `signal`.
   */
  async accept(_options: { readonly timeoutMs: number; readonly signal?: AbortSignal | undefined }): Promise<void> {}

  /** Sends the `:` probe under its own timeout. */
  async probe(_timeoutMs?: number): Promise<void> {}

  /**
   * Runs one command line and gives its reply, whatever the exit code. Where the connection is gone, waits for the agent to dial again.
   * On timeout, abort or a protocol error the connection is closed, at which the agent kills the command.
   */
  async run(_command: string | Uint8Array, _options: RunOptions = {}): Promise<CommandReply> {
    throw new Error('Not written yet');
  }

  /** Asks the agent to sync and power off; resolves when it was told. */
  async powerOff(): Promise<void> {}

  /** Closes the connection and the listener; queued calls reject. */
  async close(): Promise<void> {}
}
