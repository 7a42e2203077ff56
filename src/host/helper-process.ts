// What helper processes have in common: their environment, their last words, and how their end is told.

import { once } from 'node:events';
import type { BindingExitStatus } from '../binding.ts';
import { streamOf } from './descriptor.ts';
import { waitAtMost } from './wait-at-most.ts';

/** A program says why it ends in a line or two. */
const STDERR_BYTES = 4096;
/** Milliseconds that its words may take to arrive when it has ended. */
const LAST_WORDS_MS = 1_000;

/** This process's environment. */
export function environment(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}

/** `exit code 1: why it says so`. */
export function describeEnd({ code, signal }: BindingExitStatus, words: string): string {
  return [signal === undefined ? `exit code ${code}` : `signal ${signal}`, words].filter(Boolean).join(': ');
}

/** What a helper writes to standard error. */
export interface Words {
  /** What was said last, when all of it came or nothing more can be waited for: a child of the process may hold its end open. */
  atEnd(): Promise<string>;
}

/** Reads a helper's standard error; `onText` hears of all of it. */
export function readWords(fd: number | null, onText: (text: string) => void = () => {}): Words {
  if (fd === null) return { atEnd: () => Promise.resolve('') };
  const stream = streamOf(fd).setEncoding('utf8');
  let tail = '';
  stream.on('data', (text: string) => {
    tail = (tail + text).slice(-STDERR_BYTES);
    onText(text);
  });
  const closed = once(stream, 'close');
  // What was read until a failure has to do.
  closed.catch(() => {});
  return {
    async atEnd() {
      await waitAtMost(closed, LAST_WORDS_MS);
      stream.destroy();
      return tail.trim();
    },
  };
}
