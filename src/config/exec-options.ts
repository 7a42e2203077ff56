// What each option of `exec` may be; cwd, env and shell are checked where they become a command line.

import * as v from 'valibot';
import type { OptionProblem } from '../errors.ts';
import { milliseconds } from './milliseconds.ts';
import { problemsOf, unknownOptions } from './problems.ts';

const entries = {
  timeout: v.optional(milliseconds),
  signal: v.optional(v.custom((value) => value instanceof AbortSignal, 'an AbortSignal')),
  reject: v.optional(v.boolean('true or false')),
  input: v.optional(
    v.custom((value) => typeof value === 'string' || value instanceof Uint8Array, 'text or bytes (a Uint8Array)'),
  ),
  encoding: v.optional(v.picklist(['utf8', 'buffer'], "'utf8' or 'buffer'")),
};
const elsewhere = ['cwd', 'env', 'shell'];
const schema = v.looseObject(entries, 'an object of options');

/** Everything that is wrong with the options that are checked here, and every unknown one. */
export function execOptionProblems(options: unknown): OptionProblem[] {
  const { issues } = v.safeParse(schema, options);
  return [...problemsOf(issues ?? []), ...unknownOptions(options, [...Object.keys(entries), ...elsewhere])];
}
