// Words as a shell reads them.

/** What no shell takes for anything else than itself. A `~` or `=` at the start of a word would be. */
const PLAIN = /^[\w@%+:,./-][\w@%+=:,./-]*$/;

/** A word for a POSIX shell, in quotes where it takes them. */
export function quote(word: string): string {
  return PLAIN.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}
