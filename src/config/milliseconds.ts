// A duration as every option takes it.

import * as v from 'valibot';

/** The longest delay that a Node timer can have. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/** Whole milliseconds that a timer can wait. */
export const milliseconds: v.GenericSchema<number> = v.custom<number>(
  (value) => typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= MAX_TIMEOUT_MS,
  `whole milliseconds, 1 to ${MAX_TIMEOUT_MS}`,
);
