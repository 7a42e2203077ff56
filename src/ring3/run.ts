// Runs one program in a sandbox, and says how it went.

import { constants } from 'node:os';
import { type CommandOutcome, MicroVMError, type MicroVMErrorCode } from '../errors.ts';
import { callAsync } from '../native-call.ts';
import type { BindingOutcome, BindingRun, BindingSandbox } from './binding.ts';
import { asker, type HookFailure } from './hook.ts';
import type { OutputTarget, RunOptions } from './run-options.ts';
import { variables } from './sandbox-options.ts';
import { openInput } from './standard-input.ts';

/** How a program went. */
export interface RunResult<Output = string> {
  /** What it wrote to standard output, where that is `'pipe'`; empty otherwise. */
  readonly stdout: Output;
  /** The same for standard error. */
  readonly stderr: Output;
  /** Its exit code; undefined where a signal ended it. */
  readonly exitCode: number | undefined;
  /** The signal that ended it, as `'SIGSEGV'`. Limits and timeouts end programs by `SIGKILL`. */
  readonly signal: string | undefined;
  /** Whether `timeout` or `limits.wallTime` ended it. */
  readonly timedOut: boolean;
  /** The limit that ended it. */
  readonly limit: 'memory' | 'cpu-time' | 'wall-time' | 'output' | undefined;
  /** How many system calls it made. */
  readonly syscalls: number;
  /** The calls of those that are not there, which got `ENOSYS`, and how many of each. */
  readonly unsupported: Readonly<Record<string, number>>;
  /** Milliseconds that it took, loading included. */
  readonly durationMs: number;
  /** Milliseconds of processor time, of the program and of answering its calls. */
  readonly cpuTimeMs: number;
  /** Most bytes of memory that it had at once. */
  readonly peakMemory: number;
  /** What to do, where it wanted something that is not there: another process. */
  readonly hint: string | undefined;
}

/** What a run needs of its sandbox. */
export interface Runnable {
  readonly native: BindingSandbox;
  readonly env: Readonly<Record<string, string>>;
  readonly wallTime: number | undefined;
  readonly isClosed: () => boolean;
}

const SIGNAL_NAMES = new Map(Object.entries(constants.signals).map(([name, number]) => [number, name]));
const NO_PROCESSES =
  'Programs here cannot start other programs: give a shell builtins only, or run the programs one by one.';

/** Runs a program; see `UserSandbox.run`. What is given was checked. */
export async function run(
  box: Runnable,
  file: string,
  args: readonly string[],
  options: RunOptions,
): Promise<RunResult<string | Buffer>> {
  const { native } = box;
  const { stdin, signal, onSyscall, reject = true, encoding = 'utf8' } = options;
  const command = [file, ...args].join(' ');
  if (signal?.aborted) throw aborted(signal, nothing(command));

  let hookFailure: HookFailure | undefined;
  const ask = asker(native, onSyscall, (failure) => {
    hookFailure = failure;
    native.interrupt();
  });
  const input = openInput(stdin, () => native.interrupt());
  const abort = (): void => native.interrupt();
  let outcome: BindingOutcome;
  let inputFailure: { readonly error: unknown } | undefined;
  try {
    const running = callAsync(() => native.run(request(box, file, args, options, input.binding), ask));
    input.passed();
    signal?.addEventListener('abort', abort, { once: true });
    outcome = await running;
  } finally {
    signal?.removeEventListener('abort', abort);
    inputFailure = await input.end();
  }

  const result = toResult(outcome);
  const isCanceled = outcome.interrupted && signal?.aborted === true;
  const told = { command, ...result, stdout: result.stdout.toString(), stderr: result.stderr.toString(), isCanceled };
  if (hookFailure) {
    const { call, error } = hookFailure;
    const message = `onSyscall failed at ${call}: ${error instanceof Error ? error.message : String(error)}`;
    throw new MicroVMError('ERR_SYSCALL_HOOK', message, { cause: error, outcome: told });
  }
  // It may have taken that for the end of its input, and have ended well.
  if (inputFailure) {
    const message = `Standard input failed, so the program was ended: ${command}`;
    throw new MicroVMError('ERR_EXEC_FAILED', message, { cause: inputFailure.error, outcome: told });
  }
  if (outcome.interrupted) {
    if (signal && isCanceled) throw aborted(signal, told);
    if (box.isClosed())
      throw new MicroVMError('ERR_RING3_CLOSED', 'The sandbox was closed while a program ran', { outcome: told });
  }
  if (reject && result.exitCode !== 0) {
    const [code, words] = ending(outcome, told);
    throw new MicroVMError(code, `${words}: ${command}`, { outcome: told, hint: result.hint });
  }
  if (encoding === 'buffer') return result;
  return { ...result, stdout: told.stdout, stderr: told.stderr };
}

function request(
  box: Runnable,
  file: string,
  args: readonly string[],
  { stdout, stderr, timeout, env, onSyscall, trace = false }: RunOptions,
  input: { readonly input?: Uint8Array; readonly inputFd?: number },
): BindingRun {
  const limits = [timeout, box.wallTime].filter((limit) => limit !== undefined);
  return {
    file,
    args,
    ...input,
    ...descriptor('stdoutFd', stdout, 1),
    ...descriptor('stderrFd', stderr, 2),
    ...(trace && { traceFd: 2 }),
    ...(env && { env: variables({ ...box.env, ...env }) }),
    ...(limits.length > 0 && { timeoutMs: Math.min(...limits) }),
    asked: onSyscall?.names ?? [],
  };
}

function descriptor(name: 'stdoutFd' | 'stderrFd', target: OutputTarget = 'pipe', own: number): object {
  if (target === 'pipe') return {};
  return { [name]: target === 'inherit' ? own : -1 };
}

function toResult(outcome: BindingOutcome): RunResult<Buffer> {
  const { exitCode, signal, timedOut, limit, systemCalls, unsupported, wallTimeMs, cpuTimeMs, peakMemory } = outcome;
  return {
    stdout: buffer(outcome.stdout),
    stderr: buffer(outcome.stderr),
    exitCode,
    signal: signal === undefined ? undefined : (SIGNAL_NAMES.get(signal) ?? `SIG${signal}`),
    timedOut,
    limit,
    syscalls: systemCalls,
    unsupported,
    durationMs: wallTimeMs,
    cpuTimeMs,
    peakMemory,
    hint: outcome.wantedProcesses ? NO_PROCESSES : undefined,
  };
}

function buffer({ buffer: bytes, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(bytes, byteOffset, byteLength);
}

/** How a program ended that did not do what it should. */
function ending({ crash }: BindingOutcome, told: CommandOutcome): readonly [MicroVMErrorCode, string] {
  if (told.timedOut) return ['ERR_EXEC_TIMEOUT', `Program ran longer than it may (${Math.round(told.durationMs)} ms)`];
  if (told.limit !== undefined) return ['ERR_EXEC_FAILED', `Program reached its limit (${told.limit})`];
  if (told.signal === undefined) return ['ERR_EXEC_FAILED', `Program failed with exit code ${told.exitCode}`];
  const where =
    crash === undefined
      ? ''
      : ` at ${hex(crash.rip)}${crash.address === undefined ? '' : `, touching ${hex(crash.address)}`}`;
  return ['ERR_EXEC_FAILED', `Program was ended by ${told.signal}${where}`];
}

function hex(address: bigint): string {
  return `0x${address.toString(16)}`;
}

function aborted(signal: AbortSignal, outcome: CommandOutcome): MicroVMError {
  return new MicroVMError('ERR_EXEC_ABORTED', `Program was aborted: ${outcome.command}`, {
    cause: signal.reason,
    outcome,
  });
}

/** A program that was aborted before it began. */
function nothing(command: string): CommandOutcome {
  return {
    command,
    stdout: '',
    stderr: '',
    exitCode: undefined,
    signal: undefined,
    timedOut: false,
    isCanceled: true,
    durationMs: 0,
  };
}
