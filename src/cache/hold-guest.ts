// Keeps what a machine is made of (the kernel with its modules, the userland) from `microvm cache clean` while it is made.

import { realpath } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { cacheFolder } from './folder.ts';
import { type Hold, holdEntry } from './hold.ts';

/** Holds the entries of the cache's guest folder that the paths lead into; other paths, and absent ones, need no hold. */
export async function holdGuestFiles(paths: readonly string[], cache: string = cacheFolder()): Promise<Hold> {
  const folder = join(cache, 'guest');
  const real = await realpath(folder).catch(() => undefined);
  if (real === undefined) return { release: () => Promise.resolve() };
  const names = new Set<string>();
  for (const path of paths) {
    const target = await realpath(path).catch(() => undefined);
    const [name = ''] = target === undefined ? [] : relative(real, target).split('/');
    if (name !== '' && name !== '..') names.add(name);
  }
  const holds = await Promise.all([...names].map((name) => holdEntry(join(folder, name))));
  return {
    async release() {
      await Promise.all(holds.map((hold) => hold.release()));
    },
  };
}
