// Values that many options take: how they are checked, and the words for what is allowed.

import * as v from 'valibot';
import { isText } from './text.ts';

/** The longest delay that a Node timer can have. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/** Most bytes of a Unix socket's path: Linux keeps 108, the closing NUL included (unix(7)). */
export const MAX_SOCKET_PATH_BYTES = 107;

export const PATH_RULE = 'a path: text that is not empty, without NUL';

/** A whole number in a range, its ends included. */
export function isWhole(value: unknown, from: number, to: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= from && value <= to;
}

/** The same as a schema. */
export function wholeNumber(
  from: number,
  to: number,
  allowed = `a whole number, ${from} to ${to}`,
): v.GenericSchema<number> {
  return v.custom<number>((value) => isWhole(value, from, to), allowed);
}

/** Text that is not empty and that a kernel can take. */
export function isPath(value: unknown): value is string {
  return isText(value) && value !== '';
}

/** Whether its items can be had one by one. None is looked at: that would begin it. */
export function isIterable(value: unknown): value is Iterable<unknown> | AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && (Symbol.asyncIterator in value || Symbol.iterator in value);
}

export const path: v.GenericSchema<string> = v.custom<string>(isPath, PATH_RULE);

/** Whole milliseconds that a timer can wait. */
export const milliseconds: v.GenericSchema<number> = wholeNumber(
  1,
  MAX_TIMEOUT_MS,
  `whole milliseconds, 1 to ${MAX_TIMEOUT_MS}`,
);

export const abortSignal: v.GenericSchema<AbortSignal> = v.custom<AbortSignal>(
  (value) => value instanceof AbortSignal,
  'an AbortSignal',
);
