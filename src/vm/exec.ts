// Runs a command in the guest, over the command channel: what is left for guests whose agent has no API.

import { execOptionProblems } from '../config/exec-options.ts';
import { invalidOptions } from '../config/problems.ts';
import { MicroVMError, type CommandOutcome, withDetails } from '../errors.ts';
import { followSignals } from '../host/follow-signals.ts';
import { signalName } from '../host/signals.ts';
import { waitAtMost } from '../host/wait-at-most.ts';
import type { CommandReply } from '../vsock/command-channel.ts';
import { type CommandLine, commandLine, requestProblems } from './command-line.ts';
import { lastWords } from './console.ts';
import type { BootedMachine } from './create.ts';
import type { ExecOptions, ExecResult } from './exec-options.ts';
import { END_GRACE_MS, endError } from './exit-error.ts';
import { withInput } from './standard-input.ts';

/**
 * Checks a command with everything that belongs to it, and makes its command line.
 *
 * @param env - the machine's variables, which `options.env` goes over
 * @throws {MicroVMError} `ERR_INVALID_OPTIONS` with all problems at once
 */
export function prepareCommand(
  file: string,
  args: readonly string[],
  options: ExecOptions = {},
  env: Readonly<Record<string, string>> = {},
): CommandLine {
  const { shell, cwd, env: own } = (options as ExecOptions | null) ?? {};
  const problems = [...execOptionProblems(options), ...requestProblems({ file, args, shell, cwd, env: own })];
  if (problems.length > 0) throw invalidOptions(problems);
  return commandLine({ file, args, shell, cwd, env: { ...env, ...own } });
}

/** Runs a command; see `MicroVM.exec`. One at a time, further calls wait for their turn. */
export async function exec(
  vm: BootedMachine,
  file: string,
  args: readonly string[],
  options: ExecOptions,
): Promise<ExecResult<Buffer>> {
  const command = prepareCommand(file, args, options, vm.spec.env);
  const { timeout, signal, reject = true, input } = options;
  const line = input === undefined ? command.line : withInput(command.line, input);
  const clock = new CommandClock();
  let reply: CommandReply;
  try {
    reply = await run(vm, line, timeout, signal, clock);
  } catch (error) {
    const failure = describe(error, command, clock.durationMs);
    const { timedOut = false, isCanceled = false } = failure;
    if (reject || !(timedOut || isCanceled)) throw failure;
    return {
      stdout: Buffer.alloc(0),
      stderr: Buffer.alloc(0),
      exitCode: undefined,
      signal: undefined,
      timedOut,
      isCanceled,
      oomKilled: false,
      durationMs: clock.durationMs,
    };
  }
  const failure = unsuccessful(command, reply);
  if (failure && (reject || failure.code === 'ERR_EXEC_CWD')) throw failure;
  return {
    ...reply,
    signal: signalOfShell(reply.exitCode),
    timedOut: false,
    isCanceled: false,
    oomKilled: false,
  };
}

/** Why the machine ended under a command; `undefined` where it runs. */
export async function endUnderCommand(vm: BootedMachine): Promise<MicroVMError | undefined> {
  if (!vm.ended.aborted) return undefined;
  return endError(vm.ended, 'while a command ran or waited', await lastWords(vm));
}

/** How long a command ran, which its wait in the queue does not belong to. */
class CommandClock {
  #sentAt: number | undefined;
  #durationMs = 0;

  start(): void {
    this.#sentAt = performance.now();
  }

  stop(): void {
    if (this.#sentAt !== undefined) this.#durationMs = performance.now() - this.#sentAt;
  }

  get durationMs(): number {
    return this.#durationMs;
  }
}

async function run(
  vm: BootedMachine,
  line: string,
  timeoutMs: number | undefined,
  signal: AbortSignal | undefined,
  clock: CommandClock,
): Promise<CommandReply> {
  const either = followSignals(vm.ended, signal);
  try {
    return await vm.channel.run(line, { timeoutMs, signal: either.signal, onSend: () => clock.start() });
  } catch (error) {
    clock.stop();
    if (isBroken(error)) await waitAtMost(vm.exited, END_GRACE_MS);
    throw (await endUnderCommand(vm)) ?? error;
  } finally {
    either.release();
  }
}

/** The signal behind a shell's exit code: a program that ends with such a code itself looks the same on this channel. */
function signalOfShell(exitCode: number): NodeJS.Signals | undefined {
  return exitCode > 128 ? signalName(exitCode - 128) : undefined;
}

/** Whether the channel broke without our doing, as it does when the machine ends. */
function isBroken(error: unknown): boolean {
  return error instanceof MicroVMError && error.code.startsWith('ERR_CHANNEL_') && error.code !== 'ERR_CHANNEL_TIMEOUT';
}

/** The error of a command that did not do what it should; undefined where it did. */
function unsuccessful(command: CommandLine, reply: CommandReply): MicroVMError | undefined {
  const { exitCode, durationMs } = reply;
  if (exitCode === 0) return undefined;
  const { display } = command;
  const stderr = reply.stderr.toString();
  const noFolder = command.cwdFailure({ stderr, exitCode });
  const result: CommandOutcome = {
    command: display,
    stdout: reply.stdout.toString(),
    stderr: noFolder ?? stderr,
    exitCode,
    signal: signalOfShell(exitCode),
    timedOut: false,
    isCanceled: false,
    durationMs,
  };
  if (noFolder !== undefined) {
    const message = `The working folder cannot be entered: ${noFolder.trim()}`;
    return new MicroVMError('ERR_EXEC_CWD', message, { outcome: result });
  }
  return new MicroVMError('ERR_EXEC_FAILED', `Command failed with exit code ${exitCode}: ${display}`, {
    outcome: result,
  });
}

function describe(error: unknown, { display }: CommandLine, durationMs: number): MicroVMError {
  if (!(error instanceof MicroVMError)) throw error;
  return withDetails(error, {
    outcome: {
      command: display,
      stdout: '',
      stderr: '',
      exitCode: undefined,
      signal: undefined,
      timedOut: error.code === 'ERR_EXEC_TIMEOUT',
      isCanceled: error.code === 'ERR_EXEC_ABORTED',
      durationMs,
    },
  });
}
