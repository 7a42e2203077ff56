// How a command ended, and the error for one that did not end well.

import { type CommandOutcome, MicroVMError } from '../errors.ts';
import type { ProcessExit } from '../guest-api/process.ts';
import type { AgentRefusal } from '../guest-api/refusal.ts';
import type { ExecResult } from './exec-options.ts';
import type { ProcessOutput } from './process-output.ts';

/** What ends a command before its time. */
export type Stop =
  | { readonly kind: 'aborted'; readonly cause: unknown }
  | { readonly kind: 'stdin'; readonly cause: unknown }
  | { readonly kind: 'max-buffer'; readonly bytes: number }
  | { readonly kind: 'left' }
  | { readonly kind: 'timeout'; readonly ms: number };

/** A command that has ended. */
export interface Ended {
  /** The command as a person reads it. */
  readonly display: string;
  readonly stdout: ProcessOutput;
  readonly stderr: ProcessOutput;
  readonly durationMs: number;
  readonly stop: Stop | undefined;
  /** Undefined where its status cannot be known. */
  readonly exit: ProcessExit | undefined;
}

/** Whether it was stopped as the caller had asked for: that is a result, where failures are no errors. */
export function isAskedFor(stop: Stop | undefined): boolean {
  return stop?.kind === 'timeout' || isCancel(stop);
}

/** Whether the caller had no more use for it. */
function isCancel(stop: Stop | undefined): boolean {
  return stop?.kind === 'aborted' || stop?.kind === 'left';
}

/** How it ended, without what it wrote. */
export function statusOf({ durationMs, stop, exit }: Ended): Omit<ExecResult, 'stdout' | 'stderr'> {
  const code = exit && (exit.code ?? 128 + (exit.signalNumber ?? 0));
  return {
    exitCode: isAskedFor(stop) ? undefined : code,
    signal: exit?.signal,
    timedOut: stop?.kind === 'timeout',
    isCanceled: isCancel(stop),
    oomKilled: exit?.oomKilled ?? false,
    durationMs,
  };
}

export function outcomeOf(ended: Ended): CommandOutcome {
  const { display, stdout, stderr } = ended;
  return {
    command: display,
    stdout: stdout.bytes.toString(),
    stderr: stderr.bytes.toString(),
    ...statusOf(ended),
  };
}

/** The error for a command that was stopped, or did not end well; undefined where it did. */
export function failureOf(ended: Ended): MicroVMError | undefined {
  const { stop, exit } = ended;
  switch (stop?.kind) {
    case 'timeout':
      return failure(ended, 'ERR_EXEC_TIMEOUT', `Command did not end within ${stop.ms} ms`);
    case 'aborted':
      return failure(ended, 'ERR_EXEC_ABORTED', 'Command was aborted', stop.cause);
    case 'left':
      return failure(ended, 'ERR_EXEC_ABORTED', 'Command was ended, as its lines were not read to the end');
    case 'stdin':
      return failure(ended, 'ERR_EXEC_STDIN', 'Standard input could not be given to the command', stop.cause);
    case 'max-buffer':
      return failure(ended, 'ERR_EXEC_MAX_BUFFER', `Command wrote more than ${stop.bytes} bytes`);
    case undefined:
  }
  if (!exit || exit.code === 0) return undefined;
  const how =
    exit.code === undefined
      ? `was ended by ${exit.signal ?? `signal ${exit.signalNumber}`}`
      : `failed with exit code ${exit.code}`;
  const memory = exit.oomKilled ? ', as the guest ran out of memory' : '';
  return failure(ended, 'ERR_EXEC_FAILED', `Command ${how}${memory}`);
}

function failure(ended: Ended, code: MicroVMError['code'], words: string, cause?: unknown): MicroVMError {
  const lastLines = ended.stderr.tail || ended.stdout.tail;
  return new MicroVMError(code, `${words}: ${ended.display}${lastLines && `\n${lastLines}`}`, {
    outcome: outcomeOf(ended),
    ...(cause !== undefined && { cause }),
  });
}

/** The error for a command that the agent did not start. */
export function notStarted({ code, message }: AgentRefusal): MicroVMError {
  switch (code) {
    case 'cwd':
      return new MicroVMError('ERR_EXEC_CWD', `The working folder cannot be entered: ${message}`);
    case 'too-large':
      return new MicroVMError('ERR_COMMAND_TOO_LARGE', `The agent refused the command: ${message}`);
    default:
      return new MicroVMError('ERR_EXEC_START', `The command could not be started: ${message} (${code})`);
  }
}
