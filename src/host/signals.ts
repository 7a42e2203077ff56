// Signals by name and by number: Linux has the same on this host and in its guests.

import { constants } from 'node:os';

/** The name of a signal; undefined where it has none, as real-time signals. */
export function signalName(number: number): NodeJS.Signals | undefined {
  // SIGABRT and SIGIOT, SIGIO and SIGPOLL are the same: the first is the usual name.
  const known = Object.entries(constants.signals).find(([, own]) => own === number);
  return known?.[0] as NodeJS.Signals | undefined;
}

/** The number of a signal, given as either; undefined where there is no such signal. */
export function signalNumber(signal: unknown): number | undefined {
  if (typeof signal === 'string') return (constants.signals as Readonly<Record<string, number>>)[signal];
  return typeof signal === 'number' && Number.isInteger(signal) && signal >= 1 && signal <= 64 ? signal : undefined;
}
