// What each option of a run may be.

import * as v from 'valibot';
import { isRecord } from '../config/environment.ts';
import { codeOf, invalidOptions, problemsOf, unknownOptions } from '../config/problems.ts';
import { nearest } from '../config/suggest.ts';
import { ENVIRONMENT_NAME_RULE, isEnvironmentName, isText, TEXT_RULE } from '../config/text.ts';
import { abortSignal, isIterable, isPath, milliseconds } from '../config/values.ts';
import type { OptionProblem } from '../errors.ts';
import { systemCallNames } from './native.ts';
import type { Hook } from './hook.ts';
import type { Input } from './standard-input.ts';

/** Where a program's output goes: into the result, to this process's own, or nowhere. */
export type OutputTarget = 'pipe' | 'inherit' | 'ignore';

/** How to run a program. */
export interface RunOptions {
  /**
   * What the program reads from standard input: text, bytes, a stream or anything that can be iterated for them, or
   * `'inherit'` in an object for this process's own.
   * @default nothing
   */
  readonly stdin?: Input | undefined;
  /** Where its standard output goes. @default 'pipe' */
  readonly stdout?: OutputTarget | undefined;
  /** Where its standard error goes. @default 'pipe' */
  readonly stderr?: OutputTarget | undefined;
  /** Milliseconds the program may run; then it is killed. @default none but `limits.wallTime` */
  readonly timeout?: number | undefined;
  /** Aborting it kills the program. */
  readonly signal?: AbortSignal | undefined;
  /** Has a say in system calls. @default none: all calls are answered */
  readonly onSyscall?: Hook | undefined;
  /** Environment variables, over those of the sandbox; an undefined one takes that out. @default {} */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /** How the output is given: text as UTF-8, or bytes. @default 'utf8' */
  readonly encoding?: 'utf8' | 'buffer' | undefined;
  /**
   * Whether another exit code than 0, a signal, a limit or a timeout rejects. Programs that cannot be loaded, `signal` and
   * failures of the platform or of `onSyscall` always do.
   * @default true
   */
  readonly reject?: boolean | undefined;
  /** Write each system call as a line to this process's standard error, in the manner of strace. @default false */
  readonly trace?: boolean | undefined;
}

const isInput = (value: unknown): boolean => typeof value === 'string' || isIterable(value);

const isInherited = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && 'inherit' in value && value.inherit === true;

const target = v.picklist(['pipe', 'inherit', 'ignore'], "'pipe', 'inherit' or 'ignore'");

const hookEntries = {
  names: v.pipe(
    v.array(v.string('the name of a system call'), 'an array of names of system calls'),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return;
      const known = systemCallNames();
      dataset.value.forEach((name, key) => {
        if (known.has(name)) return;
        const meant = nearest(name, [...known]);
        const message = `the name of a system call${meant === undefined ? '' : `; did you mean '${meant}'?`}`;
        const path = [{ type: 'array', origin: 'value', input: dataset.value, key, value: name }] as const;
        addIssue({ message, input: name, path: [...path] });
      });
    }),
  ),
  decide: v.custom((value) => typeof value === 'function', 'a function'),
};

const entries = {
  stdin: v.optional(
    v.custom(
      (value) => isInput(value) || isInherited(value),
      'text, bytes (a Uint8Array), a stream or an iterable of them, or { inherit: true }',
    ),
  ),
  stdout: v.optional(target),
  stderr: v.optional(target),
  timeout: v.optional(milliseconds),
  signal: v.optional(abortSignal),
  onSyscall: v.optional(v.pipe(v.custom<object>(isRecord, 'an object: { names, decide }'), v.looseObject(hookEntries))),
  env: v.optional(
    v.pipe(
      v.custom<object>(isRecord, 'an object of names and texts'),
      v.record(
        v.custom<string>(isEnvironmentName, ENVIRONMENT_NAME_RULE),
        v.custom((value) => value === undefined || isText(value), TEXT_RULE),
      ),
    ),
  ),
  encoding: v.optional(v.picklist(['utf8', 'buffer'], "'utf8' or 'buffer'")),
  reject: v.optional(v.boolean('true or false')),
  trace: v.optional(v.boolean('true or false')),
};
const schema = v.pipe(v.custom<object>(isRecord, 'an object of options'), v.looseObject(entries));

/** Checks a run with everything that belongs to it. Throws `ERR_INVALID_OPTIONS` with every problem. */
export function checkRun(file: unknown, args: unknown, options: unknown): void {
  const { issues } = v.safeParse(schema, options);
  const hook = (options as RunOptions | null)?.onSyscall;
  const problems = [
    ...programProblems(file, args),
    ...problemsOf(issues ?? []),
    ...unknownOptions(options, Object.keys(entries)),
    ...unknownOptions(hook, Object.keys(hookEntries), ['onSyscall']),
  ];
  if (problems.length > 0) throw invalidOptions(problems);
}

function programProblems(file: unknown, args: unknown): OptionProblem[] {
  const problems: OptionProblem[] = [];
  if (!isPath(file)) {
    problems.push({
      code: codeOf(file),
      path: 'file',
      value: show(file),
      allowed: 'the path of a program: text that is not empty, without NUL',
    });
  }
  if (!Array.isArray(args))
    return [...problems, { code: codeOf(args), path: 'args', value: show(args), allowed: 'an array of texts' }];
  args.forEach((arg: unknown, index) => {
    if (!isText(arg))
      problems.push({ code: codeOf(arg), path: `args[${index}]`, value: show(arg), allowed: TEXT_RULE });
  });
  return problems;
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
