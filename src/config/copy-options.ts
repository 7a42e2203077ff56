// What each option of `copyIn`, `copyOut` and `watch` may be.

import * as v from 'valibot';
import type { OptionProblem } from '../errors.ts';
import { problemsOf, unknownOptions } from './problems.ts';
import { abortSignal, isPath, wholeNumber } from './values.ts';

const MAX_QUEUE = 2 ** 20;
const pattern = v.custom(isPath, 'a pattern: text that is not empty, without NUL');

const copyEntries = {
  signal: v.optional(abortSignal),
  onProgress: v.optional(v.custom((value) => typeof value === 'function', 'a function')),
  preserveOwner: v.optional(v.boolean('true or false')),
  exclude: v.optional(v.array(pattern, 'a list of patterns')),
};
const limit = v.optional(wholeNumber(0, Number.MAX_SAFE_INTEGER, 'a whole number, 0 or more'));
const ENTRIES: Readonly<Record<'copyIn' | 'copyOut' | 'watch', v.ObjectEntries>> = {
  copyIn: copyEntries,
  copyOut: { ...copyEntries, maxBytes: limit, maxEntries: limit },
  watch: {
    signal: v.optional(abortSignal),
    recursive: v.optional(v.boolean('true or false')),
    maxQueue: v.optional(wholeNumber(1, MAX_QUEUE)),
    overflow: v.optional(v.picklist(['ignore', 'throw'], "'ignore' or 'throw'")),
  },
};

/** Everything that is wrong with the options, and every unknown one. */
export function copyOptionProblems(of: 'copyIn' | 'copyOut' | 'watch', options: unknown): OptionProblem[] {
  const { issues } = v.safeParse(v.looseObject(ENTRIES[of], 'an object of options'), options);
  return [...problemsOf(issues ?? []), ...unknownOptions(options, Object.keys(ENTRIES[of]))];
}
