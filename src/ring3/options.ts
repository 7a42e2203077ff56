// What each option of a platform may be.

import * as v from 'valibot';
import { codeOf, invalidOptions, problemsOf, unknownOptions } from '../config/problems.ts';
import { nearest } from '../config/suggest.ts';
import { isText } from '../config/text.ts';

const MAX_VCPUS = 128;

export const path: v.GenericSchema<string> = v.custom<string>(
  (value) => isText(value) && value !== '',
  'a path: text that is not empty, without NUL',
);

const entries = {
  devicePath: v.optional(path),
  vcpus: v.optional(
    v.custom<number>(
      (value) => typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= MAX_VCPUS,
      `a whole number, 1 to ${MAX_VCPUS}`,
    ),
  ),
};
const schema = v.looseObject(entries, 'an object of options');

/** Throws `ERR_INVALID_OPTIONS` with every problem. */
export function checkPlatformOptions(name: unknown, options: unknown, known: readonly string[]): void {
  const { issues } = v.safeParse(schema, options);
  const problems = [...problemsOf(issues ?? []), ...unknownOptions(options, Object.keys(entries))];
  if (!known.includes(name as string)) {
    const meant = typeof name === 'string' ? nearest(name, known) : undefined;
    const list = `one of ${known.map((other) => `'${other}'`).join(', ')}`;
    problems.unshift({
      code: codeOf(name),
      path: 'name',
      value: typeof name === 'string' ? `'${name}'` : String(name),
      allowed: meant === undefined ? list : `${list}; did you mean '${meant}'?`,
    });
  }
  if (problems.length > 0) throw invalidOptions(problems);
}
