// Commands as one would type them into a shell.

import type { FixCommand } from './model.ts';

/** What no shell takes for anything else than itself. A `~` or `=` at the start of a word would be. */
const PLAIN = /^[\w@%+:,./-][\w@%+=:,./-]*$/;

/** A word for a POSIX shell, in quotes where it takes them. */
export function quote(word: string): string {
  return PLAIN.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}

/** A command for a POSIX shell, with `sudo` where it takes root's rights and `isRoot` is false. */
export function shellLine({ argv, sudo }: FixCommand, isRoot: boolean): string {
  return [...(sudo && !isRoot ? ['sudo'] : []), ...argv].map(quote).join(' ');
}
