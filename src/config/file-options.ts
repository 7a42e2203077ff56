// What the arguments and options of `vm.fs` may be.

import * as v from 'valibot';
import type { OptionProblem } from '../errors.ts';
import { codeOf, invalidOptions, problemsOf, show, unknownOptions } from './problems.ts';
import { abortSignal, isIterable, isPath, isWhole, PATH_RULE, wholeNumber } from './values.ts';

const MAX_QUEUE = 2 ** 20;
/** Permissions, and the bits of a file's type beside them: the `mode` of a status. */
const MAX_MODE = 0o177_777;
const MODE_RULE = 'permissions, 0 to 0o7777, or the mode that stat tells';
const NOT_NEGATIVE = 'a whole number, 0 or more';
const pattern = v.custom(isPath, 'a pattern: text that is not empty, without NUL');

const flag = v.optional(v.boolean('true or false'));
const count = v.optional(wholeNumber(0, Number.MAX_SAFE_INTEGER, NOT_NEGATIVE));
const mode = v.optional(wholeNumber(0, MAX_MODE, MODE_RULE));
const signal = v.optional(abortSignal);

const text = v.optional(v.nullable(v.picklist(['utf8', 'utf-8'], "'utf8' or 'utf-8'")));
const content = v.optional(
  v.nullable(v.picklist(['utf8', 'utf-8', 'buffer'], "'utf8' or 'utf-8' for text, 'buffer', null or none for bytes")),
);
const append = { encoding: text, mode, signal };
const writeFlag = v.optional(v.picklist(['w', 'wx', 'a', 'ax', 'r+'], "'w', 'wx', 'a', 'ax' or 'r+'"));
const copy = {
  signal,
  onProgress: v.optional(v.custom((value) => typeof value === 'function', 'a function')),
  preserveOwner: flag,
  exclude: v.optional(v.array(pattern, 'a list of patterns')),
};

/** The operations that take options. */
export type FileOperation =
  | 'readFile'
  | 'writeFile'
  | 'appendFile'
  | 'createReadStream'
  | 'createWriteStream'
  | 'mkdir'
  | 'readdir'
  | 'rm'
  | 'copyIn'
  | 'copyOut'
  | 'watch';

const ENTRIES: Readonly<Record<FileOperation, v.ObjectEntries>> = {
  readFile: { encoding: content, maxBytes: count, signal },
  writeFile: { ...append, flag: writeFlag },
  appendFile: append,
  createReadStream: { encoding: content, start: count, end: count, signal },
  createWriteStream: { ...append, flags: writeFlag, start: count },
  mkdir: { recursive: flag, mode },
  readdir: { withFileTypes: flag, recursive: flag },
  rm: { recursive: flag, force: flag },
  copyIn: copy,
  copyOut: { ...copy, maxBytes: count, maxEntries: count },
  watch: {
    signal,
    recursive: flag,
    maxQueue: v.optional(wholeNumber(1, MAX_QUEUE)),
    overflow: v.optional(v.picklist(['ignore', 'throw'], "'ignore' or 'throw'")),
  },
};

/** Everything that is wrong with the options of an operation, and every unknown one. */
export function fileOptionProblems(of: FileOperation, options: unknown): OptionProblem[] {
  const { issues } = v.safeParse(v.looseObject(ENTRIES[of], 'an object of options'), options);
  return [...problemsOf(issues ?? []), ...unknownOptions(options, Object.keys(ENTRIES[of]))];
}

/** What is wrong with arguments, by their names. */
export function argumentProblems(
  values: Readonly<Record<string, unknown>>,
  isRight: (value: unknown) => boolean,
  allowed: string,
): OptionProblem[] {
  return Object.entries(values)
    .filter(([, value]) => !isRight(value))
    .map(([path, value]) => ({ code: codeOf(value), path, value: show(value), allowed }));
}

export function pathProblems(paths: Readonly<Record<string, unknown>>): OptionProblem[] {
  return argumentProblems(paths, isPath, PATH_RULE);
}

/** Numbers from 0 to `most`. */
export function numberProblems(numbers: Readonly<Record<string, unknown>>, most: number): OptionProblem[] {
  const allowed = most === Number.MAX_SAFE_INTEGER ? NOT_NEGATIVE : `a whole number, 0 to ${most}`;
  return argumentProblems(numbers, (value) => isWhole(value, 0, most), allowed);
}

export function modeProblems(given: unknown): OptionProblem[] {
  return argumentProblems({ mode: given }, (value) => isWhole(value, 0, MAX_MODE), MODE_RULE);
}

/** What cannot become the content of a file. */
export function contentProblems(given: unknown): OptionProblem[] {
  const allowed = 'text, bytes (a Uint8Array), a stream, or something that can be iterated';
  return argumentProblems({ content: given }, isContent, allowed);
}

function isContent(value: unknown): boolean {
  if (typeof value === 'string' || value instanceof Uint8Array) return true;
  // Other views are iterated number by number, which are no content.
  return isIterable(value) && !ArrayBuffer.isView(value);
}

/** A part of a file that would begin behind its own end. Values that are no numbers are told by their own rules. */
export function rangeProblems(options: unknown): OptionProblem[] {
  const { start, end } = Object(options) as { readonly start?: unknown; readonly end?: unknown };
  if (!isWhole(start, 0, Number.MAX_SAFE_INTEGER) || !isWhole(end, 0, Number.MAX_SAFE_INTEGER)) return [];
  return argumentProblems({ start }, () => start <= end, `at most end, which is ${end}`);
}

/** Throws all problems as one error, where there are any. */
export function refuse(...problems: readonly (readonly OptionProblem[])[]): void {
  const all = problems.flat();
  if (all.length > 0) throw invalidOptions(all);
}
