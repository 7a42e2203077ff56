// What `exec` takes, and what it gives.

import type { Readable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';

/** What a command can read from: text, bytes, a stream, anything that can be iterated, or this process's standard input. */
export type StdinSource =
  | string
  | Uint8Array
  | Readable
  | ReadableStream
  | AsyncIterable<string | Uint8Array>
  | Iterable<string | Uint8Array>
  | 'inherit'
  | 'pipe'
  | 'ignore';

/** How to run a command. */
export interface ExecOptions {
  /**
   * Milliseconds the command may run; then it gets SIGTERM with all that it started, and SIGKILL after `killGrace`.
   * @default none
   */
  readonly timeout?: number | undefined;
  /**
   * Milliseconds between SIGTERM and SIGKILL when `timeout` is over.
   * @default 5000
   */
  readonly killGrace?: number | undefined;
  /**
   * Environment variables, over those of the machine. Nothing of this process's environment is passed on.
   * @default {}
   */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /**
   * Working folder in the guest.
   * @default '/'
   */
  readonly cwd?: string | undefined;
  /**
   * Whom it runs as: a name of the guest's, or a number.
   * @default root
   */
  readonly user?: string | number | undefined;
  /**
   * The group it runs as: a name of the guest's, or a number.
   * @default the user's own; 0 where the guest does not know the number that `user` is
   */
  readonly group?: string | number | undefined;
  /** Aborting it kills the command with all that it started. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Whether another exit code than 0, a signal, a timeout, an abort or lines that are not read to the end reject. A `cwd` that
   * cannot be entered, `maxBuffer`, an input that fails, and failures of the machine or of its agent always do.
   * @default true
   */
  readonly reject?: boolean | undefined;
  /**
   * What the command reads from standard input. `'pipe'` leaves it to `stdin` of what `exec` returns, and so does taking
   * that one before the first `await`; `'inherit'` is this process's standard input. A text is the input itself, other
   * than these words; `input` takes any.
   * @default 'ignore'
   */
  readonly stdin?: StdinSource | undefined;
  /** What the command reads from standard input, whatever it says. */
  readonly input?: string | Uint8Array | undefined;
  /**
   * How the output is given: text as UTF-8 (`'utf8'` or `'utf-8'`), or bytes. The outputs in an error are text all the same.
   * @default 'utf8'
   */
  readonly encoding?: 'utf8' | 'utf-8' | 'buffer' | undefined;
  /**
   * Whether the result is without the line break that an output ends with, as execa has it. Streams and lines are as they are.
   * @default false: outputs are as they were written
   */
  readonly stripFinalNewline?: boolean | undefined;
  /**
   * Whether the outputs are kept for the result. Without it they are for those who take `stdout` and `stderr`; what nobody
   * has taken when it comes is dropped.
   * @default true
   */
  readonly buffer?: boolean | undefined;
  /**
   * Bytes of each output that are kept for the result, and of each line when lines are read. A command that writes more
   * is killed.
   * @default 67108864 (64 MiB)
   */
  readonly maxBuffer?: number | undefined;
  /**
   * Runs it on a terminal of this size, in characters: standard error comes with standard output then. `TERM` is `xterm`
   * unless `env` says another.
   * @default none
   */
  readonly pty?: { readonly cols: number; readonly rows: number } | undefined;
  /**
   * It lives on when its `signal` ends the call, or the connection to its agent breaks; all else ends it as any other. No
   * command outlives its machine.
   * @default false
   */
  readonly detached?: boolean | undefined;
  /**
   * Whether the command is a line for a shell; a string names the shell. A list behind it is arguments, which no shell reads.
   * @default `true` for a command without a list of arguments that is more than a name or a path, such as `'make && ls'`
   */
  readonly shell?: boolean | string | undefined;
}

/** What a command gave. */
export interface ExecResult<Output = string> {
  /** Empty with `buffer: false`. */
  readonly stdout: Output;
  /** Empty with `buffer: false`, and on a terminal. */
  readonly stderr: Output;
  /** 128 + signal where a signal ended it; undefined where it ran into `timeout`, or was canceled. */
  readonly exitCode: number | undefined;
  /** The signal that ended it. */
  readonly signal: NodeJS.Signals | undefined;
  readonly timedOut: boolean;
  /** Whether `signal` of the options ended it, or its lines were not read to the end. */
  readonly isCanceled: boolean;
  /**
   * Whether the guest's kernel killed it, or a process that it had started, for want of memory. False too where the
   * kernel does not count memory by control groups.
   */
  readonly oomKilled: boolean;
  /** Milliseconds from sending the command to the end of its output. */
  readonly durationMs: number;
}
