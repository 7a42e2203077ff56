// A command in the guest as its caller sees it: awaitable, readable, writable, killable.

import { Readable, type Writable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';
import { terminalSizeProblems } from '../config/exec-options.ts';
import { codeOf, invalidOptions } from '../config/problems.ts';
import { MicroVMError } from '../errors.ts';
import type { RemoteProcess } from '../guest-api/process.ts';
import { AgentRefusal } from '../guest-api/refusal.ts';
import { signalNumber } from '../host/signals.ts';
import type { Stop } from './command-failure.ts';
import type { ExecResult } from './exec-options.ts';
import { linesOf } from './lines.ts';
import type { ProcessInput } from './process-input.ts';
import type { ProcessOutput } from './process-output.ts';

/** What runs a command, and what of it its `GuestProcess` shows. */
export interface Execution<Output> {
  readonly stdout: ProcessOutput;
  readonly stderr: ProcessOutput;
  readonly stdin: ProcessInput;
  /** Resolves when the guest has started it; rejects when it does not. */
  readonly started: Promise<RemoteProcess>;
  readonly result: Promise<ExecResult<Output>>;
  /** Ends it with all that it started, and tells why. */
  readonly end: (why: Stop) => void;
  /** Bytes that a line may have. */
  readonly maxLineBytes: number;
}

/**
 * A command that runs in the guest: a promise of its result that has its streams too.
 *
 * ```ts
 * const build = vm.exec('make', ['test']);
 * for await (const line of build) console.log(line);
 * const { exitCode } = await build;
 * ```
 */
export class GuestProcess<Output = string> implements Promise<ExecResult<Output>>, AsyncIterable<string> {
  readonly #execution: Execution<Output>;
  #readable: ReadableStream<Uint8Array> | undefined;
  readonly [Symbol.toStringTag] = 'GuestProcess';

  /** @internal */
  constructor(execution: Execution<Output>) {
    this.#execution = execution;
  }

  /**
   * Standard input. Take it before the first `await`, or ask for it by `stdin: 'pipe'`: otherwise the input is what the
   * options say, and this stream has ended.
   */
  get stdin(): Writable {
    this.#execution.stdin.isTaken = true;
    return this.#execution.stdin;
  }

  /**
   * Standard output, as bytes; on a terminal both outputs. A slow reader holds the command up. It ends with the output, whatever
   * the exit code: how the command ended is what awaiting it tells. Where that cannot be known, it is destroyed with the reason.
   */
  get stdout(): Readable {
    this.#isWatched();
    return this.#execution.stdout.stream;
  }

  /** Standard error, as bytes; it ends as `stdout` does. A slow reader holds the command up, its standard output too. */
  get stderr(): Readable {
    this.#isWatched();
    return this.#execution.stderr.stream;
  }

  /** Standard output as a Web stream of bytes: the same one each time, so that it is locked while it is read. */
  get readable(): ReadableStream<Uint8Array> {
    this.#readable ??= Readable.toWeb(this.stdout) as ReadableStream<Uint8Array>;
    return this.#readable;
  }

  /** Its number in the guest, once it runs; rejects when it could not be started. */
  get pid(): Promise<number> {
    this.#isWatched();
    return this.#execution.started.then(({ pid }) => pid);
  }

  /**
   * Sends a signal to it and to those of its children that have not left its process group; 0 only asks whether it is there.
   * False when it has ended.
   *
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS` where there is no such signal
   */
  async kill(signal: NodeJS.Signals | number = 'SIGTERM'): Promise<boolean> {
    const number = signal === 0 ? 0 : signalNumber(signal);
    if (number === undefined) {
      throw invalidOptions([
        { code: codeOf(signal), path: 'signal', value: String(signal), allowed: 'the name or number of a signal' },
      ]);
    }
    return this.#tell((process) => process.signal(number));
  }

  /**
   * Tells its terminal a new size, in characters. False when it has ended. Only with `pty`.
   *
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS` for sides that are not whole numbers from 1 to 65,535, `ERR_AGENT_REFUSED`
   *   without a terminal
   */
  async resize(size: { readonly cols: number; readonly rows: number }): Promise<boolean> {
    const problems = terminalSizeProblems(size);
    if (problems.length > 0) throw invalidOptions(problems);
    return this.#tell((process) => process.resize(size.cols, size.rows));
  }

  /**
   * The lines of standard output, without their ends. Throws as awaiting the process does when the command fails; leaving
   * the loop early ends the command.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    const { stdout, maxLineBytes, end, result } = this.#execution;
    this.#isWatched();
    let why: Stop | undefined = { kind: 'left' };
    try {
      yield* linesOf(stdout.stream, maxLineBytes);
      why = undefined;
    } catch (error) {
      // The command's own error says what was run, too.
      if (!isLineTooLong(error)) throw error;
      why = { kind: 'max-buffer', bytes: maxLineBytes };
    } finally {
      if (why) end(why);
    }
    await result;
  }

  // oxlint-disable-next-line unicorn/no-thenable -- being awaitable is its purpose
  then<A = ExecResult<Output>, B = never>(
    onFulfilled?: ((result: ExecResult<Output>) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    // oxlint-disable-next-line promise/prefer-await-to-then
    return this.#execution.result.then(onFulfilled, onRejected);
  }

  catch<B = never>(onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<ExecResult<Output> | B> {
    return this.#execution.result.catch(onRejected);
  }

  finally(onFinally?: (() => void) | null): Promise<ExecResult<Output>> {
    return this.#execution.result.finally(onFinally);
  }

  /** Whoever has taken a part of it may look at the promise later, or never. */
  #isWatched(): void {
    this.#execution.result.catch(() => {});
    this.#execution.started.catch(() => {});
  }

  async #tell(what: (process: RemoteProcess) => Promise<void>): Promise<boolean> {
    this.#execution.started.catch(() => {});
    const process = await this.#execution.started;
    try {
      await what(process);
      return true;
    } catch (error) {
      if (!(error instanceof AgentRefusal)) throw error;
      if (error.code === 'not-found') return false;
      throw new MicroVMError('ERR_AGENT_REFUSED', `The agent refused it: ${error.message}`, { cause: error });
    }
  }
}

function isLineTooLong(error: unknown): boolean {
  return error instanceof MicroVMError && error.code === 'ERR_EXEC_MAX_BUFFER';
}
