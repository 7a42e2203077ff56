// What each option of a platform may be.

import * as v from 'valibot';
import { codeOf, invalidOptions, problemsOf, unknownOptions } from '../config/problems.ts';
import { nearest } from '../config/suggest.ts';
import { path, wholeNumber } from '../config/values.ts';

const MAX_VCPUS = 128;

const entries = {
  devicePath: v.optional(path),
  vcpus: v.optional(wholeNumber(1, MAX_VCPUS)),
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
