// Runs a command in the guest, over the command channel.

import type { MachineExit } from '../accelerators/accelerator.ts';
import { checkExecOptions } from '../config/exec-options.ts';
import { MicroVMError, type CommandOutcome, withDetails } from '../errors.ts';
import type { CommandReply } from '../vsock/command-channel.ts';
import { type CommandLine, commandLine } from './command-line.ts';
import type { BootedMachine } from './create.ts';
import { exitError } from './exit-error.ts';
import { withInput } from './standard-input.ts';

/** How to run a command. */
export interface ExecOptions {
  /**
   * Milliseconds the command may run; then it is killed with all that it started.
   * @default none
   */
  readonly timeout?: number | undefined;
  /**
   * Environment variables, over those of the machine.
   * @default {}
   */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /**
   * Working folder in the guest.
   * @default '/'
   */
  readonly cwd?: string | undefined;
  /** Aborting it kills the command with all that it started. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Whether another exit code than 0, or a timeout, rejects. Failures of the machine or of the channel always do.
   * @default true
   */
  readonly reject?: boolean | undefined;
  /**
   * What the command reads from standard input, which is empty otherwise.
   * @default none
   */
  readonly input?: string | Uint8Array | undefined;
  /**
   * How the output is given: text as UTF-8, or bytes.
   * @default 'utf8'
   */
  readonly encoding?: 'utf8' | 'buffer' | undefined;
  /**
   * As with `node:child_process`: the command is a line for a shell; a string names the shell.
   * @default false
   */
  readonly shell?: boolean | string | undefined;
}

/** What a command gave. */
export interface ExecResult<Output = string> {
  readonly stdout: Output;
  readonly stderr: Output;
  /** 128 + signal where a signal ended it; undefined where it ran into `timeout`. */
  readonly exitCode: number | undefined;
  readonly timedOut: boolean;
  /** Milliseconds from sending the command to the end of its reply. */
  readonly durationMs: number;
}

/** Milliseconds that a machine gets to end after its channel broke, so that the error can tell why. */
const LAST_WORDS_MS = 2_000;

/** Runs a command; see `MicroVM.exec`. */
export async function exec(
  vm: BootedMachine,
  file: string,
  args: readonly string[],
  options: ExecOptions,
): Promise<ExecResult<string | Buffer>> {
  checkExecOptions(options);
  const { timeout, cwd, signal, reject = true, encoding = 'utf8', shell, input } = options;
  const command = commandLine({ file, args, shell, cwd, env: { ...vm.spec.env, ...options.env } });
  const line = input === undefined ? command.line : withInput(command.line, input);
  const started = performance.now();
  let reply: CommandReply;
  try {
    reply = await run(vm, line, timeout, signal);
  } catch (error) {
    const failure = describe(error, command, performance.now() - started);
    if (reject || !failure.timedOut) throw failure;
    reply = { stdout: Buffer.alloc(0), stderr: Buffer.alloc(0), exitCode: 0, durationMs: failure.durationMs ?? 0 };
    return { ...outcome(reply, encoding), exitCode: undefined, timedOut: true };
  }
  if (reject && reply.exitCode !== 0) throw unsuccessful(command, reply);
  return { ...outcome(reply, encoding), exitCode: reply.exitCode, timedOut: false };
}

async function run(
  vm: BootedMachine,
  line: string,
  timeoutMs: number | undefined,
  signal: AbortSignal | undefined,
): Promise<CommandReply> {
  try {
    const any = AbortSignal.any([vm.ended, ...(signal ? [signal] : [])]);
    return await vm.channel.run(line, { timeoutMs, signal: any });
  } catch (error) {
    if (isBroken(error)) await endsSoon(vm);
    if (!vm.ended.aborted) throw error;
    throw exitError(vm.ended.reason as MachineExit, 'while a command ran or waited', vm.console.tail);
  }
}

/** Whether the channel broke without our doing, as it does when the machine ends. */
function isBroken(error: unknown): boolean {
  return error instanceof MicroVMError && error.code.startsWith('ERR_CHANNEL_') && error.code !== 'ERR_CHANNEL_TIMEOUT';
}

async function endsSoon(vm: BootedMachine): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, LAST_WORDS_MS);
  });
  await Promise.race([vm.exited, timeout]);
  clearTimeout(timer);
}

function outcome<E extends 'utf8' | 'buffer'>(
  { stdout, stderr, durationMs }: CommandReply,
  encoding: E,
): Pick<ExecResult<string | Buffer>, 'stdout' | 'stderr' | 'durationMs'> {
  if (encoding === 'buffer') return { stdout, stderr, durationMs };
  return { stdout: stdout.toString(), stderr: stderr.toString(), durationMs };
}

function unsuccessful(command: CommandLine, reply: CommandReply): MicroVMError {
  const { display } = command;
  const stderr = reply.stderr.toString();
  const noFolder = command.cwdFailure({ stderr, exitCode: reply.exitCode });
  const result: CommandOutcome = {
    command: display,
    stdout: reply.stdout.toString(),
    stderr,
    exitCode: reply.exitCode,
    timedOut: false,
    durationMs: reply.durationMs,
  };
  if (noFolder !== undefined) {
    return new MicroVMError('ERR_EXEC_CWD', `The working folder cannot be entered: ${noFolder}`, { outcome: result });
  }
  return new MicroVMError('ERR_EXEC_FAILED', `Command failed with exit code ${reply.exitCode}: ${display}`, {
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
      timedOut: error.code === 'ERR_EXEC_TIMEOUT',
      durationMs,
    },
  });
}
