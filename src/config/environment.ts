// Environment variables as every option takes them.

import * as v from 'valibot';
import { ENVIRONMENT_NAME_RULE, isEnvironmentName, isText, TEXT_RULE } from './text.ts';

/** An object that names what it holds. */
export function isRecord(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A record of names and texts. */
export const environment: v.GenericSchema<Record<string, string>> = v.pipe(
  v.custom<object>(isRecord, 'an object of names and texts'),
  // A record leaves such names out in silence.
  v.check(
    (variables) => !['__proto__', 'constructor', 'prototype'].some((name) => Object.hasOwn(variables, name)),
    'variables with other names than __proto__, constructor and prototype',
  ),
  v.record(v.custom<string>(isEnvironmentName, ENVIRONMENT_NAME_RULE), v.custom<string>(isText, TEXT_RULE)),
) as v.GenericSchema<Record<string, string>>;
