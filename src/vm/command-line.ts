// argv, cwd and env → one script for `/bin/sh -c`, POSIX-quoted: the command channel carries nothing but command lines.

import { randomBytes } from 'node:crypto';
import type { OptionProblem } from '../errors.ts';
import { codeOf } from '../config/problems.ts';
import { ENVIRONMENT_NAME_RULE, isEnvironmentName, isText, TEXT_RULE } from '../config/text.ts';
import { isPath, PATH_RULE } from '../config/values.ts';

export interface CommandLineRequest {
  /** The program, or with `shell` the command line. */
  readonly file: string;
  readonly args?: readonly string[] | undefined;
  /** `file` is a line for a shell, `/bin/sh` unless a string names another; `args` are words behind it. */
  readonly shell?: boolean | string | undefined;
  readonly cwd?: string | undefined;
  /** Variables over the guest's own; undefined ones are left out. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
}

export interface CommandLine {
  /** The script for `/bin/sh -c`. */
  readonly line: string;
  /** The command as one would type it, without cwd and env: for messages. */
  readonly display: string;
  /** What the shell said when it could not enter `cwd`, all of standard error but our own mark; undefined when it could. */
  cwdFailure(reply: { readonly stderr: string; readonly exitCode: number }): string | undefined;
}

/** Variables that a shell itself uses, checks or forbids to set: these go through env(1), all others through `export`. */
const SHELL_OWN =
  /^(?:BASH\w*|COLUMNS|DIRSTACK|ENV|EPOCH\w*|EUID|FUNCNAME|GROUPS|HIST\w*|HOSTTYPE|IFS|LINENO|LINES|MACHTYPE|OLDPWD|OPTARG|OPTERR|OPTIND|OSTYPE|PIPESTATUS|POSIXLY_CORRECT|PPID|PS\d|PWD|RANDOM|SECONDS|SHELLOPTS|SHLVL|SRANDOM|TMOUT|UID|_)$/;
const CWD_EXIT_CODE = 125;

/** Makes the script, from a request without {@link requestProblems}. */
export function commandLine(request: CommandLineRequest): CommandLine {
  const { file, args = [], shell = false, cwd, env = {} } = request;

  const display = shell === false ? [file, ...args].map(quote).join(' ') : scriptOf(file, args);
  const variables = Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined);
  const exported = variables.filter(([name]) => !SHELL_OWN.test(name));
  const viaEnv = variables.filter(([name]) => SHELL_OWN.test(name));
  const marker = `microvm-cwd-${randomBytes(8).toString('hex')}`;

  const lines: string[] = [];
  if (cwd !== undefined) lines.push(`cd ${quote(folder(cwd))} || { echo ${marker} >&2; exit ${CWD_EXIT_CODE}; }`);
  if (exported.length > 0) lines.push(`export ${exported.map(assignment).join(' ')}`);
  lines.push(invocation(display, shell, viaEnv.map(assignment)));

  return {
    line: lines.join('\n'),
    display,
    cwdFailure({ stderr, exitCode }) {
      if (cwd === undefined || exitCode !== CWD_EXIT_CODE) return undefined;
      // Other programs of the line may have a word after the shell: base64 does, when nobody takes its output.
      const [said = '', ...rest] = stderr.split(`${marker}\n`);
      return rest.length === 0 ? undefined : said + rest.join('');
    },
  };
}

/** The line for a shell: what is in the list are its arguments as they are, whatever they hold. */
export function scriptOf(line: string, args: readonly string[]): string {
  return [line, ...args.map(quote)].join(' ');
}

/** One word for a POSIX shell that stands for exactly `text`. */
export function quote(text: string): string {
  return /^[\w@%+:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

function assignment([name, value]: readonly [string, string]): string {
  return `${name}=${quote(value)}`;
}

function invocation(command: string, shell: boolean | string, viaEnv: readonly string[]): string {
  const prefix = viaEnv.length === 0 ? 'exec' : `exec env ${viaEnv.join(' ')}`;
  if (shell === false) return `${prefix} ${command}`;
  if (shell === true && viaEnv.length === 0) return command;
  return `${prefix} ${quote(shell === true ? '/bin/sh' : shell)} -c ${quote(command)}`;
}

/** With a leading `./`, neither CDPATH nor a name like `-` means anything special. */
function folder(cwd: string): string {
  return cwd.startsWith('/') ? cwd : `./${cwd}`;
}

/** All that cannot be handed to a shell. The request may come from JavaScript: nothing of it is taken for granted. */
export function requestProblems({
  file,
  args = [],
  shell = false,
  cwd,
  env = {},
}: CommandLineRequest): OptionProblem[] {
  const problems: OptionProblem[] = [];
  const check = (isRight: boolean, path: string, value: unknown, allowed: string, shown = show(value)): void => {
    if (!isRight) problems.push({ code: codeOf(value), path, value: shown, allowed });
  };
  const argumentsAreList = Array.isArray(args);
  check(argumentsAreList, 'args', args, 'an array of texts', typeof args);
  if (shell === false) {
    // `exec -x` and `env a=b` would read such names as their own options.
    check(isText(file) && /^[^-][^=]*$/.test(file), 'file', file, 'a program: a name or path without =, no - first');
  } else {
    check(isPath(file), 'file', file, 'a command line: text without NUL');
    check(
      shell === true || (isText(shell) && shell.startsWith('/')),
      'shell',
      shell,
      'true, false or an absolute path',
    );
  }
  if (argumentsAreList) args.forEach((arg, index) => check(isText(arg), `args[${index}]`, arg, TEXT_RULE));
  check(cwd === undefined || isPath(cwd), 'cwd', cwd, PATH_RULE);
  const variablesAreRecord = typeof env === 'object' && env !== null && !Array.isArray(env);
  check(variablesAreRecord, 'env', env, 'an object of names and texts');
  for (const [name, value] of variablesAreRecord ? Object.entries(env) : []) {
    check(isEnvironmentName(name), `env[${JSON.stringify(name)}]`, name, ENVIRONMENT_NAME_RULE);
    check(value === undefined || isText(value), `env.${name}`, value, TEXT_RULE, `a ${typeof value}`);
  }
  return problems;
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
