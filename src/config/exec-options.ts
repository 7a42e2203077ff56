// What each option of `exec` may be; cwd, env and shell are checked where they become a command line.

import * as v from 'valibot';
import type { OptionProblem } from '../errors.ts';
import { problemsOf, unknownOptions } from './problems.ts';
import { isText } from './text.ts';
import { abortSignal, isIterable, isWhole, milliseconds, wholeNumber } from './values.ts';

/** The number beyond stands for "none" in the kernel's calls. */
const MAX_ID = 2 ** 32 - 2;

const account = v.custom(
  (value) => (isText(value) && /^[^:\n]+$/.test(value)) || isWhole(value, 0, MAX_ID),
  `a name or a number, 0 to ${MAX_ID}`,
);
const terminalSide = wholeNumber(1, 65_535);
const terminalSize = v.looseObject(
  { cols: terminalSide, rows: terminalSide },
  '{ cols, rows }: the size of a terminal, in characters',
);

const entries = {
  timeout: v.optional(milliseconds),
  signal: v.optional(abortSignal),
  reject: v.optional(v.boolean('true or false')),
  input: v.optional(
    v.custom((value) => typeof value === 'string' || value instanceof Uint8Array, 'text or bytes (a Uint8Array)'),
  ),
  stdin: v.optional(
    v.custom(isSource, "text, bytes, a stream, something that can be iterated, 'inherit', 'pipe' or 'ignore'"),
  ),
  encoding: v.optional(v.picklist(['utf8', 'utf-8', 'buffer'], "'utf8', 'utf-8' or 'buffer'")),
  stripFinalNewline: v.optional(v.boolean('true or false')),
  buffer: v.optional(v.boolean('true or false')),
  maxBuffer: v.optional(wholeNumber(1, Number.MAX_SAFE_INTEGER, 'a whole number of bytes, at least 1')),
  killGrace: v.optional(milliseconds),
  user: v.optional(account),
  group: v.optional(account),
  pty: v.optional(terminalSize),
  detached: v.optional(v.boolean('true or false')),
};
const elsewhere = ['cwd', 'env', 'shell'];
const schema = v.looseObject(entries, 'an object of options');

function isSource(value: unknown): boolean {
  return typeof value === 'string' || isIterable(value);
}

/** Everything that is wrong with the options that are checked here, and every unknown one. */
export function execOptionProblems(options: unknown): OptionProblem[] {
  const { issues } = v.safeParse(schema, options);
  return [...problemsOf(issues ?? []), ...unknownOptions(options, [...Object.keys(entries), ...elsewhere])];
}

/** Everything that is wrong with the size of a terminal. */
export function terminalSizeProblems(size: unknown): OptionProblem[] {
  return problemsOf(v.safeParse(terminalSize, size).issues ?? []);
}
