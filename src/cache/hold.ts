// Marks a cache entry as in use, so that `microvm cache clean` in another process leaves it alone. A mark names its process: when that
// is gone the mark counts for nothing. Processes of other PID namespaces (containers that share the folder) look gone to each other.

import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { isAlive, processIdentity } from '../host/process-identity.ts';

const HOLDS = 'holds';
const marks = new Set<string>();
process.once('exit', () => marks.forEach((mark) => rmSync(mark, { force: true })));

/** A mark; ends with `release`, or with the process. */
export interface Hold {
  release(): Promise<void>;
}

/**
 * Marks an entry (`<cache>/<kind>/<name>`) as in use. Look whether it is there afterwards, not before.
 * Where the cache cannot be written to, nobody can clean it either, and there is no mark.
 */
export async function holdEntry(entry: string): Promise<Hold> {
  const folder = join(dirname(dirname(entry)), HOLDS);
  // Threads of a process share its identity, and not this module.
  const mark = join(folder, `${holdName(entry)}@${processIdentity()}-${randomBytes(6).toString('hex')}`);
  const isMade = await mkdir(folder, { recursive: true, mode: 0o700 })
    .then(() => writeFile(mark, ''))
    .then(
      () => true,
      () => false,
    );
  if (!isMade) return { release: () => Promise.resolve() };
  marks.add(mark);
  return {
    async release() {
      marks.delete(mark);
      await rm(mark, { force: true });
    },
  };
}

/** The entries (`<kind>/<name>`) that living processes hold. Marks of dead ones are removed. */
export async function heldEntries(cache: string): Promise<Set<string>> {
  const folder = join(cache, HOLDS);
  const names = await readdir(folder).catch(() => []);
  const held = new Set<string>();
  for (const mark of names) {
    const [name = '', owner = ''] = mark.split('@');
    if (isAlive(owner.split('-').slice(0, 2).join('-'))) held.add(decodeURIComponent(name));
    else await rm(join(folder, mark), { force: true });
  }
  return held;
}

function holdName(entry: string): string {
  return encodeURIComponent(`${basename(dirname(entry))}/${basename(entry)}`);
}
