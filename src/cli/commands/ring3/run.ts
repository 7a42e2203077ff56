// `microvm ring3 run`: one sandbox, one program, its output and exit code.

import { constants } from 'node:os';

import { MicroVMError } from '../../../errors.ts';
import type { RunOptions } from '../../../ring3/run-options.ts';
import type { RunResult } from '../../../ring3/run.ts';
import { UserSandbox } from '../../../ring3/user-sandbox.ts';
import { type OptionTable, parseArguments, type ParsedArguments, UsageError } from '../../arguments.ts';
import { CANNOT_RUN, NOT_FOUND, OWN_FAILURE, SIGNALED, TIMED_OUT } from '../../exit-codes.ts';
import type { HelpPage } from '../../help.ts';
import { type Interruption, interruptible } from '../../interruption.ts';
import { errorAsData, errorAsText } from '../../report-error.ts';
import { environment, printJson, wholeNumber } from '../../values.ts';

const options = {
  root: {
    type: 'string',
    value: 'DIR',
    help: 'Folder that the program sees as /; nothing in it is changed (default none)',
  },
  memory: { type: 'string', value: 'SIZE', help: 'Memory of the program, such as 64MiB or 1GiB (default 256MiB)' },
  timeout: { type: 'string', value: 'MS', help: 'End the program after so many milliseconds (exit code 124)' },
  env: {
    type: 'string',
    multiple: true,
    value: 'K=V',
    help: 'Environment variable for the program; K alone takes the value from here. Repeatable',
  },
  cwd: { type: 'string', value: 'DIR', help: 'Folder in which the program starts, in its own tree (default /)' },
  json: { type: 'boolean', help: 'Print one JSON object with output, exit code, system calls or the error' },
  trace: { type: 'boolean', help: 'Print each system call to standard error, in the manner of strace' },
  help: { type: 'boolean', short: 'h', help: 'Show this page' },
} as const satisfies OptionTable;

export const runPage: HelpPage = {
  summary: 'Runs one static program; its system calls are answered by this process.',
  usage: 'ring3 run [options] -- PROGRAM [ARGS…]',
  options,
  sections: {
    Program: [
      'A static x86-64 program (ET_EXEC or static PIE), by its path on this machine: it is not looked up under --root',
      'or in PATH; what it opens is under --root. Standard input, output and error are those of this command.',
      'It has no network and cannot start other programs: of a shell only builtins work.',
    ],
    'Exit codes': [
      "N    the program's own; 128 + signal when a signal ended it (137 for a limit)",
      '124  the program ran longer than --timeout',
      '125  microvm itself failed: bad options, no usable KVM',
      '126  the program was found but cannot be run: a script, dynamically linked, for another processor',
      '127  the program was not found',
      '130  interrupted by Ctrl-C',
      '143  ended by SIGTERM',
    ],
  },
  examples: [
    ['microvm ring3 run -- /bin/busybox echo hello', 'Run a static program'],
    ['microvm ring3 run --root . -- /bin/busybox sha256sum /README.md', 'Let it read a folder, and nothing else'],
    ['microvm ring3 run --trace -- ./program', 'See its system calls'],
    [
      "echo 'i=0; while [ $i -lt 3 ]; do echo $i; i=$((i+1)); done' | microvm ring3 run -- /bin/busybox sh",
      'Run a script of builtins',
    ],
  ],
};

/** Runs the program; resolves with the exit code. */
export async function run(argv: readonly string[]): Promise<number> {
  const given = parseArguments(argv, options);
  const [file, ...args] = given.rest;
  if (file === undefined) throw new UsageError('No program to run', 'microvm ring3 run -- PROGRAM');

  const interruption = interruptible();
  try {
    return await runOnce(given, file, args, interruption);
  } catch (error) {
    if (interruption.exitCode !== undefined) return interruption.exitCode;
    if (given.flag('json')) printJson({ error: errorAsData(error, 'ring3 run') });
    else process.stderr.write(errorAsText(error, process.stderr, 'ring3 run'));
    return failureCode(error);
  } finally {
    interruption.end();
  }
}

async function runOnce(
  given: ParsedArguments,
  file: string,
  args: readonly string[],
  { signal }: Interruption,
): Promise<number> {
  const json = given.flag('json');
  const timeout = wholeNumber(given, 'timeout');
  const runOptions: RunOptions = {
    stdin: { inherit: true },
    ...(!json && { stdout: 'inherit', stderr: 'inherit' }),
    timeout,
    signal,
    trace: given.flag('trace'),
    reject: false,
  };
  const box = await UserSandbox.create({
    memory: given.text('memory'),
    root: given.text('root'),
    env: environment(given.texts('env')),
    cwd: given.text('cwd'),
  });
  try {
    const result = await box.run(file, args, runOptions);
    if (json) printJson(result);
    else for (const words of remarks(result, timeout)) process.stderr.write(`microvm: ${words}\n`);
    return exitCode(result);
  } finally {
    await box.close();
  }
}

/** What there is to say beside the program's own output. */
function remarks({ timedOut, limit, hint, exitCode }: RunResult<unknown>, timeout: number | undefined): string[] {
  const words: string[] = [];
  if (timedOut) words.push(`the program ran longer than ${timeout} ms`);
  else if (limit !== undefined) words.push(`the program reached its limit (${limit})`);
  if (hint !== undefined && exitCode !== 0) words.push(hint);
  return words;
}

function exitCode({ timedOut, exitCode: code, signal }: RunResult<unknown>): number {
  if (timedOut) return TIMED_OUT;
  if (signal === undefined) return code ?? OWN_FAILURE;
  return SIGNALED + (constants.signals[signal as NodeJS.Signals] ?? 0);
}

function failureCode(error: unknown): number {
  if (!(error instanceof MicroVMError)) return OWN_FAILURE;
  if (error.code === 'ERR_PROGRAM_MISSING') return NOT_FOUND;
  return error.code === 'ERR_PROGRAM_INVALID' ? CANNOT_RUN : OWN_FAILURE;
}
