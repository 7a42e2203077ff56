// Runs a command by the agent API: from its options to its result or its error.

import type { ClientHttp2Stream } from 'node:http2';
import type { MachineExit } from '../accelerators/accelerator.ts';
import { type CommandOutcome, MicroVMError, withDetails } from '../errors.ts';
import { destroy } from '../guest-api/agent-api.ts';
import {
  encodeSpecification,
  type ProcessExit,
  type ProcessSpecification,
  RemoteProcess,
} from '../guest-api/process.ts';
import { AgentRefusal } from '../guest-api/refusal.ts';
import { type Deferred, deferred } from '../host/deferred.ts';
import { waitAtMost } from '../host/wait-at-most.ts';
import type { CommandLine } from './command-line.ts';
import { lastWords } from './console.ts';
import type { BootedMachine } from './create.ts';
import { exec, prepareCommand } from './exec.ts';
import type { ExecOptions, ExecResult } from './exec-options.ts';
import { exitError } from './exit-error.ts';
import { GuestProcess } from './guest-process.ts';
import { feed, isNothing, ProcessInput, sourceOf } from './process-input.ts';
import { ProcessOutput } from './process-output.ts';

const MAX_BUFFER = 64 * 1024 * 1024;
const KILL_GRACE_MS = 5_000;
/** Milliseconds beyond the grace time after which an agent that does not end a command is believed no more. */
const AGENT_GRACE_MS = 2_000;
/** Milliseconds that a machine gets to end after its connection broke, so that the error can tell why. */
const LAST_WORDS_MS = 2_000;
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

/** What ends a command before its time. */
type Stop =
  | { readonly kind: 'aborted'; readonly cause: unknown }
  | { readonly kind: 'stdin'; readonly cause: unknown }
  | { readonly kind: 'max-buffer' }
  | { readonly kind: 'left' }
  | { readonly kind: 'timeout' };

class Run {
  readonly process: GuestProcess<string | Buffer>;
  readonly #vm: BootedMachine;
  readonly #options: ExecOptions;
  readonly #stdin = new ProcessInput();
  readonly #stdout: ProcessOutput;
  readonly #stderr: ProcessOutput;
  #stream: ClientHttp2Stream | undefined;
  #remote: RemoteProcess | undefined;
  #stop: Stop | undefined;
  readonly #stopped = deferred<never>();
  #sentAt: number | undefined;
  #durationMs = 0;

  constructor(vm: BootedMachine, file: string, args: readonly string[], options: ExecOptions) {
    this.#vm = vm;
    this.#options = (options as ExecOptions | null) ?? {};
    const { buffer = true, maxBuffer = MAX_BUFFER } = this.#options;
    const output = (): ProcessOutput =>
      new ProcessOutput({
        keep: buffer,
        maxBytes: maxBuffer,
        onExcess: () => this.#end({ kind: 'max-buffer' }),
        onDrain: () => this.#drain(),
      });
    this.#stdout = output();
    this.#stderr = output();
    const started = deferred<RemoteProcess>();
    this.process = new GuestProcess({
      stdin: this.#stdin,
      stdout: this.#stdout,
      stderr: this.#stderr,
      started: started.promise,
      result: this.#settle(file, args, options, started),
      end: () => this.#end({ kind: 'left' }),
      maxLineBytes: maxBuffer,
    });
  }

  async #settle(
    file: string,
    args: readonly string[],
    options: ExecOptions,
    started: Deferred<RemoteProcess>,
  ): Promise<ExecResult<string | Buffer>> {
    try {
      const command = prepareCommand(file, args, options, this.#vm.spec.env);
      const exit = await this.#run(command, specificationOf(this.#vm, file, args, this.#options), started);
      return this.#result(command, exit);
    } catch (error) {
      started.reject(error);
      if (error instanceof ApiMissing) return await this.#fallBack(file, args, error);
      this.#stdout.end(error as Error);
      this.#stderr.end(error as Error);
      throw error;
    } finally {
      this.#stdin.abandon();
    }
  }

  async #run(
    command: CommandLine,
    specification: ProcessSpecification,
    started: Deferred<RemoteProcess>,
  ): Promise<ProcessExit> {
    const head = encodeSpecification(specification);
    const { signal, stdin, input } = this.#options;
    const abort = (): void => this.#end({ kind: 'aborted', cause: signal?.reason });
    if (signal?.aborted) abort();
    else signal?.addEventListener('abort', abort, { once: true });
    let timers: (() => void) | undefined;
    let unfeed: (() => void) | undefined;
    try {
      this.#throwIfStopped();
      // The caller gets the process meanwhile, and may take its input.
      this.#stream = await this.#open();
      this.#sentAt = performance.now();
      timers = this.#limit();
      if (!this.#stdin.isTaken && isNothing(stdin, input)) {
        // The end comes with the beginning: the guest takes one packet instead of two.
        this.#stream.end(head);
        this.#stdin.abandon();
      } else {
        this.#stream.write(head);
        this.#stdin.attach(this.#stream);
        const source = this.#stdin.isTaken ? undefined : sourceOf(stdin, input);
        unfeed = source && feed(source, this.#stdin, (cause) => this.#end({ kind: 'stdin', cause }));
      }
      const remote = await RemoteProcess.started(this.#vm.api, this.#stream, {
        onOutput: (kind, piece) => {
          (kind === 1 ? this.#stdout : this.#stderr).push(piece);
          return this.#isReady();
        },
      });
      this.#remote = remote;
      started.resolve(remote);
      return await remote.exit;
    } catch (error) {
      this.#measure();
      if (this.#stream) destroy(this.#stream);
      const failure = await this.#explain(error, command);
      if (!this.#isAnEnd || this.#options.reject !== false) throw failure;
      // To be stopped before the command began, or while nobody answered, is a result like any other.
      started.reject(failure);
      return NO_STATUS;
    } finally {
      this.#measure();
      signal?.removeEventListener('abort', abort);
      timers?.();
      unfeed?.();
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
      throw new MicroVMError('ERR_NOT_SUPPORTED', `The agent of this guest has no API, which ${what} needs`, {
        cause: reason.cause,
      });
    }
    const result = await exec(this.#vm, file, args, this.#options);
    for (const [output, content] of [
      [this.#stdout, result.stdout],
      [this.#stderr, result.stderr],
    ] as const) {
      if (content.length > 0) output.push(Buffer.from(content));
      output.end();
    }
    return result;
  }

  /** The limit of time: the agent asks all of it to end, and kills it; should the agent do nothing, the request is given up. */
  #limit(): () => void {
    const { timeout, killGrace = KILL_GRACE_MS } = this.#options;
    if (timeout === undefined) return () => {};
    let last: NodeJS.Timeout | undefined;
    const first = setTimeout(() => {
      this.#stop ??= { kind: 'timeout' };
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

  /** Gives the request up, at which the agent kills the command with all that it started. */
  #end(stop: Stop): void {
    this.#stop ??= stop;
    this.#stopped.reject(new Error('It was stopped before it began'));
    if (this.#stream) destroy(this.#stream);
  }

  /** Whether it was stopped as the caller had asked for: that is a result, where failures are no errors. */
  get #isAnEnd(): boolean {
    return this.#stop?.kind === 'timeout' || this.#stop?.kind === 'aborted';
  }

  #throwIfStopped(): void {
    if (this.#stop) throw new Error('It was stopped before it began');
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
    const { reject = true, encoding = 'utf8' } = this.#options;
    if (this.#stop && !this.#isAnEnd) throw this.#failure(command, this.#stop, exit);
    const failure = this.#failure(command, this.#stop, exit);
    if (failure && reject) throw failure;
    this.#stdout.end();
    this.#stderr.end();
    const { exitCode, timedOut, isCanceled, durationMs } = this.#outcome(command, this.#stop, exit);
    const content = ({ bytes }: ProcessOutput): string | Buffer => (encoding === 'buffer' ? bytes : bytes.toString());
    const [stdout, stderr] = [content(this.#stdout), content(this.#stderr)];
    const { signal, oomKilled } = exit;
    return { stdout, stderr, exitCode, signal, timedOut, isCanceled, oomKilled, durationMs };
  }

  /** The error for a command that was stopped, or did not end well; undefined where it did. */
  #failure(command: CommandLine, stop: Stop | undefined, exit: ProcessExit | undefined): MicroVMError | undefined {
    const { display } = command;
    const outcome = this.#outcome(command, stop, exit);
    const fail = (code: MicroVMError['code'], words: string, cause?: unknown): MicroVMError =>
      new MicroVMError(code, `${words}: ${display}${this.#lastLines()}`, {
        outcome,
        ...(cause !== undefined && { cause }),
      });
    switch (stop?.kind) {
      case 'timeout':
        return fail('ERR_EXEC_TIMEOUT', `Command did not end within ${this.#options.timeout} ms`);
      case 'aborted':
        return fail('ERR_EXEC_ABORTED', 'Command was aborted', stop.cause);
      case 'left':
        return fail('ERR_EXEC_ABORTED', 'Command was ended, as its lines were not read to the end');
      case 'stdin':
        return fail('ERR_EXEC_STDIN', 'Standard input could not be given to the command', stop.cause);
      case 'max-buffer':
        return fail('ERR_EXEC_MAX_BUFFER', `Command wrote more than ${this.#options.maxBuffer ?? MAX_BUFFER} bytes`);
      case undefined:
    }
    if (!exit || exit.code === 0) return undefined;
    const memory = exit.oomKilled ? ', as the guest ran out of memory' : '';
    if (exit.code !== undefined) return fail('ERR_EXEC_FAILED', `Command failed with exit code ${exit.code}${memory}`);
    return fail('ERR_EXEC_FAILED', `Command was ended by ${exit.signal ?? `signal ${exit.signalNumber}`}${memory}`);
  }

  #outcome(command: CommandLine, stop: Stop | undefined, exit: ProcessExit | undefined): CommandOutcome {
    const timedOut = stop?.kind === 'timeout';
    const isCanceled = stop?.kind === 'aborted';
    const code = exit && (exit.code ?? 128 + (exit.signalNumber ?? 0));
    return {
      command: command.display,
      stdout: this.#stdout.bytes.toString(),
      stderr: this.#stderr.bytes.toString(),
      exitCode: timedOut || isCanceled ? undefined : code,
      signal: exit?.signal,
      timedOut,
      isCanceled,
      oomKilled: exit?.oomKilled ?? false,
      durationMs: this.#durationMs,
    };
  }

  #lastLines(): string {
    const tail = this.#stderr.tail || this.#stdout.tail;
    return tail === '' ? '' : `\n${tail}`;
  }

  /** Why there is no exit status. */
  async #explain(error: unknown, command: CommandLine): Promise<unknown> {
    if (error instanceof ApiMissing) return error;
    if (this.#stop) return this.#failure(command, this.#stop, undefined);
    const outcome = this.#outcome(command, undefined, undefined);
    if (error instanceof AgentRefusal) return withDetails(refused(error), { outcome });
    if (!(error instanceof MicroVMError)) return error;
    if (error.code !== 'ERR_MACHINE_EXITED' && isBroken(error)) await waitAtMost(this.#vm.exited, LAST_WORDS_MS);
    const { ended } = this.#vm;
    if (!ended.aborted) return withDetails(error, { outcome });
    const told = exitError(ended.reason as MachineExit, 'while a command ran or waited', await lastWords(this.#vm));
    return withDetails(told, { outcome });
  }
}

/** The guest's agent has no API. */
class ApiMissing extends Error {
  constructor(cause: unknown) {
    super('The agent of this guest has no API', { cause });
  }
}

function isBroken({ code }: MicroVMError): boolean {
  return code === 'ERR_AGENT_LOST' || code === 'ERR_VSOCK_REFUSED' || code === 'ERR_SOCKET_FAILED';
}

function refused({ code, message }: AgentRefusal): MicroVMError {
  switch (code) {
    case 'cwd':
      return new MicroVMError('ERR_EXEC_CWD', `The working folder cannot be entered: ${message}`);
    case 'too-large':
      return new MicroVMError('ERR_COMMAND_TOO_LARGE', `The agent refused the command: ${message}`);
    default:
      return new MicroVMError('ERR_EXEC_START', `The command could not be started: ${message} (${code})`);
  }
}

function specificationOf(
  vm: BootedMachine,
  file: string,
  args: readonly string[],
  options: ExecOptions,
): ProcessSpecification {
  const { shell = false, cwd, env, user, group, pty, detached } = options;
  const variables = Object.entries({ ...vm.spec.env, ...env }).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  );
  return {
    ...(shell === false
      ? { argv: [file, ...args] }
      : { argv: [shell === true ? '/bin/sh' : shell], script: [file, ...args].join(' ') }),
    env: Object.fromEntries(variables),
    cwd,
    user: user?.toString(),
    group: group?.toString(),
    terminal: pty && { columns: pty.cols, rows: pty.rows },
    detached,
  };
}
