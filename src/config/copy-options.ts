// What each option of `copyIn`, `copyOut` and `watch` may be.

import * as v from 'valibot';
import type { OptionProblem } from '../errors.ts';
import { problemsOf, unknownOptions } from './problems.ts';
import { isText } from './text.ts';

const signal = v.optional(v.custom((value) => value instanceof AbortSignal, 'an AbortSignal'));
const isLimit = (value: unknown): boolean => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
const pattern = v.custom((value) => isText(value) && value !== '', 'a pattern: text that is not empty, without NUL');

const copyEntries = {
  signal,
  onProgress: v.optional(v.custom((value) => typeof value === 'function', 'a function')),
  preserveOwner: v.optional(v.boolean('true or false')),
  exclude: v.optional(v.array(pattern, 'a list of patterns')),
};
const limit = v.optional(v.custom(isLimit, 'a whole number, 0 or more'));
const ENTRIES: Readonly<Record<'copyIn' | 'copyOut' | 'watch', v.ObjectEntries>> = {
  copyIn: copyEntries,
  copyOut: { ...copyEntries, maxBytes: limit, maxEntries: limit },
  watch: {
    signal,
    recursive: v.optional(v.boolean('true or false')),
    maxQueue: v.optional(
      v.custom(
        (value) => isLimit(value) && Number(value) > 0 && Number(value) <= 2 ** 20,
        'a whole number, 1 to 1048576',
      ),
    ),
    overflow: v.optional(v.picklist(['ignore', 'throw'], "'ignore' or 'throw'")),
  },
};

/** Everything that is wrong with the options, and every unknown one. */
export function copyOptionProblems(of: 'copyIn' | 'copyOut' | 'watch', options: unknown): OptionProblem[] {
  const { issues } = v.safeParse(v.looseObject(ENTRIES[of], 'an object of options'), options);
  return [...problemsOf(issues ?? []), ...unknownOptions(options, Object.keys(ENTRIES[of]))];
}
