// What each option of `stop` may be.

import * as v from 'valibot';
import { invalidOptions, problemsOf, unknownOptions } from './problems.ts';
import { milliseconds } from './values.ts';

const entries = { timeout: v.optional(milliseconds) };
const schema = v.looseObject(entries, 'an object of options');

/** Throws `ERR_INVALID_OPTIONS` with every problem. */
export function checkStopOptions(options: unknown): void {
  const { issues } = v.safeParse(schema, options);
  const problems = [...problemsOf(issues ?? []), ...unknownOptions(options, Object.keys(entries))];
  if (problems.length > 0) throw invalidOptions(problems);
}
