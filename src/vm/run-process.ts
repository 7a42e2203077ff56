// Runs a command by the agent API: from its options to its result or its error.

import type { ClientHttp2Stream } from 'node:http2';
import { MicroVMError, withDetails } from '../errors.ts';
import { destroy } from '../guest-api/agent-api.ts';
import {
  encodeSpecification,
  type ProcessExit,
  type ProcessSpecification,
  RemoteProcess,
} from '../guest-api/process.ts';
import { AgentRefusal } from '../guest-api/refusal.ts';
import { deferred } from '../host/deferred.ts';
import { waitAtMost } from '../host/wait-at-most.ts';
import { type Ended, failureOf, isAskedFor, notStarted, outcomeOf, statusOf, type Stop } from './command-failure.ts';
import { type CommandLine, scriptOf } from './command-line.ts';
import type { BootedMachine } from './create.ts';
import { endUnderCommand, exec, prepareCommand } from './exec.ts';
import type { ExecOptions, ExecResult } from './exec-options.ts';
import { END_GRACE_MS } from './exit-error.ts';
import { GuestProcess } from './guest-process.ts';
import { contentOf } from './output-content.ts';
import { InputSource, isNothing, ProcessInput } from './process-input.ts';
import { ProcessOutput } from './process-output.ts';

const MAX_BUFFER = 64 * 1024 * 1024;
const KILL_GRACE_MS = 5_000;
/** Milliseconds beyond the grace time after which an agent that does not end a command is believed no more. */
const AGENT_GRACE_MS = 2_000;
/** Output that is taken though nobody reads it, of a command that has run into its limit of time; it is killed at more. */
const UNREAD_BYTES = 4 * 1024 * 1024;
/** Options that only the agent API can fulfil. */
const API_ONLY = ['stdin', 'user', 'group', 'pty', 'detached', 'maxBuffer', 'buffer'] as const;

/** Of a command that timed out without anybody telling how it ended. */
const NO_STATUS: ProcessExit = { code: undefined, signal: undefined, signalNumber: undefined, oomKilled: false };

/** Starts a command; see `MicroVM.exec`. Never throws: what is wrong rejects. */
export function startProcess(
  vm: BootedMachine,
  file: string,
  args: readonly string[],
  options: ExecOptions,
): GuestProcess<string | Buffer> {
  return new Run(vm, file, args, options).process;
}

class Run {
  readonly process: GuestProcess<string | Buffer>;
  readonly #vm: BootedMachine;
  readonly #options: ExecOptions;
  readonly #stdin = new ProcessInput();
  readonly #stdout: ProcessOutput;
  readonly #stderr: ProcessOutput;
  #stream: ClientHttp2Stream | undefined;
  readonly #started = deferred<RemoteProcess>();
  #remote: RemoteProcess | undefined;
  #stop: Stop | undefined;
  readonly #stopped = deferred<never>();
  #sentAt: number | undefined;
  #durationMs = 0;
  #unreadBytes = 0;

  constructor(vm: BootedMachine, file: string, args: readonly string[], options: ExecOptions) {
    this.#vm = vm;
    this.#options = (options as ExecOptions | null) ?? {};
    const { buffer = true, maxBuffer = MAX_BUFFER } = this.#options;
    const output = (): ProcessOutput =>
      new ProcessOutput({
        keep: buffer,
        maxBytes: maxBuffer,
        onExcess: () => this.#end({ kind: 'max-buffer', bytes: maxBuffer }),
        onDrain: () => this.#drain(),
      });
    this.#stdout = output();
    this.#stderr = output();
    this.process = new GuestProcess({
      stdin: this.#stdin,
      stdout: this.#stdout,
      stderr: this.#stderr,
      started: this.#started.promise,
      result: this.#settle(file, args, options),
      end: (stop) => this.#end(stop),
      maxLineBytes: maxBuffer,
    });
  }

  async #settle(file: string, args: readonly string[], options: ExecOptions): Promise<ExecResult<string | Buffer>> {
    try {
      const command = prepareCommand(file, args, options, this.#vm.spec.env);
      const exit = await this.#run(command, specificationOf(this.#vm, file, args, this.#options));
      return this.#result(command, exit);
    } catch (error) {
      this.#started.reject(error);
      if (error instanceof ApiMissing) return await this.#fallBack(file, args, error);
      this.#stdout.end(error as Error);
      this.#stderr.end(error as Error);
      throw error;
    } finally {
      this.#stdin.abandon();
    }
  }

  async #run(command: CommandLine, specification: ProcessSpecification): Promise<ProcessExit> {
    const head = encodeSpecification(specification);
    const { signal, stdin, input } = this.#options;
    const abort = (): void => this.#end({ kind: 'aborted', cause: signal?.reason });
    if (signal?.aborted) abort();
    else signal?.addEventListener('abort', abort, { once: true });
    let timers: (() => void) | undefined;
    const source = InputSource.of(stdin, input, (cause) => this.#end({ kind: 'stdin', cause }));
    try {
      this.#throwIfStopped();
      // The caller gets the process meanwhile, and may take its input.
      this.#stream = await this.#open();
      this.#throwIfStopped();
      this.#sentAt = performance.now();
      timers = this.#limit();
      const isTheCallers = this.#stdin.isTaken && stdin === undefined && input === undefined;
      if (isNothing(stdin, input) && !isTheCallers) {
        // The end comes with the beginning: the guest takes one packet instead of two.
        this.#stream.end(head);
        this.#stdin.abandon();
      } else {
        this.#stream.write(head);
        this.#stdin.attach(this.#stream);
        source?.pipe(this.#stdin);
      }
      const remote = await RemoteProcess.started(this.#vm.api, this.#stream, {
        onOutput: (kind, piece) => this.#take(kind === 1 ? this.#stdout : this.#stderr, piece),
      });
      this.#remote = remote;
      this.#started.resolve(remote);
      return await remote.exit;
    } catch (error) {
      this.#measure();
      if (this.#stream) destroy(this.#stream);
      const failure = await this.#explain(error, command);
      if (!isAskedFor(this.#stop) || this.#options.reject !== false) throw failure;
      // To be stopped before the command began, or while nobody answered, is a result like any other.
      this.#started.reject(failure);
      return NO_STATUS;
    } finally {
      this.#measure();
      signal?.removeEventListener('abort', abort);
      timers?.();
      source?.release();
    }
  }

  async #open(): Promise<ClientHttp2Stream> {
    try {
      const opening = this.#vm.api.open('POST', '/v1/exec');
      return await Promise.race([opening, this.#stopped.promise]).catch((error: unknown) => {
        void opening.then(destroy, () => {});
        throw error;
      });
    } catch (error) {
      if (error instanceof MicroVMError && error.code === 'ERR_VSOCK_REFUSED' && !this.#vm.ended.aborted) {
        throw new ApiMissing(error);
      }
      throw error;
    }
  }

  /** A guest whose agent has no API takes commands by the channel, one at a time. */
  async #fallBack(file: string, args: readonly string[], reason: ApiMissing): Promise<ExecResult<string | Buffer>> {
    const needed = API_ONLY.find((name) => this.#options[name] !== undefined);
    if (needed !== undefined || this.#stdin.isTaken) {
      const what = needed ?? 'stdin';
      // A machine that ends refuses connections as well, a moment before its end is known.
      await waitAtMost(this.#vm.exited, END_GRACE_MS);
      const lacking = `The agent of this guest has no API, which ${what} needs`;
      const told = await endUnderCommand(this.#vm);
      throw told ?? new MicroVMError('ERR_NOT_SUPPORTED', lacking, { cause: reason.cause });
    }
    const result = await exec(this.#vm, file, args, this.#options);
    const handOn = (output: ProcessOutput, content: Buffer): string | Buffer => {
      if (content.length > 0) output.push(content);
      output.end();
      return contentOf(content, this.#options);
    };
    return { ...result, stdout: handOn(this.#stdout, result.stdout), stderr: handOn(this.#stderr, result.stderr) };
  }

  /** The limit of time: the agent asks all of it to end, and kills it; should the agent do nothing, the request is given up. */
  #limit(): () => void {
    const { timeout, killGrace = KILL_GRACE_MS } = this.#options;
    if (timeout === undefined) return () => {};
    let last: NodeJS.Timeout | undefined;
    const first = setTimeout(() => {
      this.#stop ??= { kind: 'timeout', ms: timeout };
      // Nobody is to be held up by an output that nobody reads.
      this.#drain(true);
      last = setTimeout(() => this.#stream && destroy(this.#stream), killGrace + AGENT_GRACE_MS);
      if (this.#remote) void this.#remote.terminate(killGrace).catch(() => {});
      else if (this.#stream) destroy(this.#stream);
    }, timeout);
    return () => {
      clearTimeout(first);
      clearTimeout(last);
    };
  }

  /**
   * Gives the request up, at which the agent kills the command with all that it started. A detached one lives on then, which
   * only an abort is for: for other reasons it is killed first.
   */
  #end(stop: Stop): void {
    const isFirst = this.#stop === undefined;
    this.#stop ??= stop;
    this.#stopped.reject(new Error('It was stopped before it began'));
    const stream = this.#stream;
    if (!stream) return;
    if (!this.#options.detached || stop.kind === 'aborted') destroy(stream);
    else if (isFirst) void this.#kill(stream);
  }

  async #kill(stream: ClientHttp2Stream): Promise<void> {
    // What it writes meanwhile is not to stand before its end.
    this.#drain(true);
    try {
      const remote = await this.#started.promise;
      await remote.terminate(0);
    } catch {
      // It was not started, or its agent is lost: nobody can do more.
    } finally {
      destroy(stream);
    }
  }

  #throwIfStopped(): void {
    if (this.#stop) throw new Error('It was stopped before it began');
  }

  /** Whether more is wanted. */
  #take(output: ProcessOutput, piece: Buffer): boolean {
    output.push(piece);
    if (this.#stop && !output.isReady) {
      // It is over, so nothing is held back any more that the status may be behind; but this host has no end of room.
      this.#unreadBytes += piece.length;
      if (this.#unreadBytes > UNREAD_BYTES && this.#stream) destroy(this.#stream);
    }
    return this.#isReady();
  }

  #isReady(): boolean {
    return this.#stop !== undefined || (this.#stdout.isReady && this.#stderr.isReady);
  }

  #drain(anyway = false): void {
    if (anyway || this.#isReady()) this.#remote?.resume();
  }

  #measure(): void {
    if (this.#sentAt !== undefined && this.#durationMs === 0) this.#durationMs = performance.now() - this.#sentAt;
  }

  #result(command: CommandLine, exit: ProcessExit): ExecResult<string | Buffer> {
    const { reject = true } = this.#options;
    const ended = this.#ended(command, exit);
    // The outputs are whole, however the command ended: who reads them gets all of them.
    this.#stdout.end();
    this.#stderr.end();
    // Of what may be long, nothing is decoded that nobody gets.
    const failure = reject || (this.#stop && !isAskedFor(this.#stop)) ? failureOf(ended) : undefined;
    if (failure) throw failure;
    const stdout = contentOf(this.#stdout.bytes, this.#options);
    const stderr = contentOf(this.#stderr.bytes, this.#options);
    return { stdout, stderr, ...statusOf(ended) };
  }

  #ended(command: CommandLine, exit: ProcessExit | undefined): Ended {
    return {
      display: command.display,
      stdout: this.#stdout,
      stderr: this.#stderr,
      durationMs: this.#durationMs,
      stop: this.#stop,
      exit,
    };
  }

  /** Why there is no exit status. */
  async #explain(error: unknown, command: CommandLine): Promise<unknown> {
    if (error instanceof ApiMissing) return error;
    const ended = this.#ended(command, undefined);
    if (this.#stop) return failureOf(ended);
    const outcome = outcomeOf(ended);
    if (error instanceof AgentRefusal) return withDetails(notStarted(error), { outcome });
    if (!(error instanceof MicroVMError)) return error;
    if (isUnreachable(error)) await waitAtMost(this.#vm.exited, END_GRACE_MS);
    return withDetails((await endUnderCommand(this.#vm)) ?? error, { outcome });
  }
}

/** The guest's agent has no API. */
class ApiMissing extends Error {
  constructor(cause: unknown) {
    super('The agent of this guest has no API', { cause });
  }
}

function isUnreachable({ code }: MicroVMError): boolean {
  return code === 'ERR_VSOCK_REFUSED' || code === 'ERR_SOCKET_FAILED';
}

function specificationOf(
  vm: BootedMachine,
  file: string,
  args: readonly string[],
  options: ExecOptions,
): ProcessSpecification {
  const { shell = false, cwd, env, user, group, pty, detached } = options;
  // A program on a terminal asks for its kind; the least that all have, as docker has it.
  const terminal = pty && { TERM: 'xterm' };
  const variables = Object.entries({ ...terminal, ...vm.spec.env, ...env }).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  );
  return {
    ...(shell === false
      ? { argv: [file, ...args] }
      : { argv: [shell === true ? '/bin/sh' : shell], script: scriptOf(file, args) }),
    env: Object.fromEntries(variables),
    cwd,
    user: user?.toString(),
    group: group?.toString(),
    terminal: pty && { columns: pty.cols, rows: pty.rows },
    detached,
  };
}
