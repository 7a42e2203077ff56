// What `microvm cache ls` and `microvm cache clean` see: entries are the files and folders one level below the cache's own folders.

import { randomBytes } from 'node:crypto';
import { lstat, readdir, readlink, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MicroVMError, errnoOf } from '../errors.ts';
import { isAlive } from '../host/process-identity.ts';
import { cacheFolder } from './folder.ts';
import { heldEntries } from './hold.ts';
import { TEMPORARY } from './publish.ts';

export { cacheFolder } from './folder.ts';

/** `tool` and `other` are what the project's own set-up keeps; `temporary` is what an interrupted run left. */
export type CacheKind = 'kernel' | 'userland' | 'initramfs' | 'vmlinux' | 'tool' | 'temporary' | 'other';

export interface CacheEntry {
  readonly kind: CacheKind;
  readonly path: string;
  /** What it takes, all files summed up. */
  readonly bytes: number;
  readonly usedAt: Date;
  /** A running process holds it. */
  readonly inUse: boolean;
}

export interface CleanOptions {
  /** @default cacheFolder() */
  readonly folder?: string;
  /**
   * Also what the set-up fetched and built (kernels, userlands, tools): only it can make them anew.
   * @default false
   */
  readonly all?: boolean | undefined;
}

/** What the next machine makes anew when it is gone. */
const MADE_ON_DEMAND: ReadonlySet<CacheKind> = new Set<CacheKind>(['initramfs', 'vmlinux', 'temporary']);
const HOLDS = 'holds';

/** All entries, largest first. An absent cache is an empty one. */
export async function listCache(folder: string = cacheFolder()): Promise<CacheEntry[]> {
  const held = await heldEntries(folder);
  const groups = (await readFolder(folder)).filter((group) => group !== HOLDS);
  const lists = await Promise.all(
    groups.map(async (group) => {
      const names = await readFolder(join(folder, group));
      return Promise.all(names.map((name) => describe(folder, group, name, held)));
    }),
  );
  return lists
    .flat()
    .filter((entry) => entry !== undefined)
    .sort((a, b) => b.bytes - a.bytes);
}

/** Removes what machines make anew, or with `all` everything; never what a running process holds. */
export async function cleanCache(options: CleanOptions = {}): Promise<{ removed: CacheEntry[]; kept: CacheEntry[] }> {
  const { folder = cacheFolder(), all = false } = options;
  const removed: CacheEntry[] = [];
  const kept: CacheEntry[] = [];
  for (const entry of await listCache(folder)) {
    const isWanted = all || MADE_ON_DEMAND.has(entry.kind);
    const isRemoved = isWanted && !entry.inUse && (await removeEntry(folder, entry));
    (isRemoved ? removed : kept).push(entry);
  }
  await removeDanglingLinks(folder);
  return { removed, kept };
}

async function describe(
  folder: string,
  group: string,
  name: string,
  held: ReadonlySet<string>,
): Promise<CacheEntry | undefined> {
  const path = join(folder, group, name);
  const found = await lstat(path).catch(() => undefined);
  // Links only say which entry is the current one.
  if (!found || found.isSymbolicLink()) return undefined;
  const owner = TEMPORARY.exec(name)?.[1];
  const inUse = held.has(`${group}/${name}`) || (owner !== undefined && isAlive(owner));
  const bytes = found.isDirectory() ? await bytesInside(path) : found.size;
  return { kind: kindOf(group, name), path, bytes, usedAt: found.mtime, inUse };
}

function kindOf(group: string, name: string): CacheKind {
  if (name.startsWith('.')) return 'temporary';
  if (group === 'guest') return name.startsWith('userland-') ? 'userland' : 'kernel';
  if (group === 'initramfs' || group === 'vmlinux') return group;
  return ['bench', 'lab', 'tools'].includes(group) ? 'tool' : 'other';
}

/** Takes the entry away by a rename, looks once more whether somebody has taken hold of it meanwhile, and only then deletes it. */
async function removeEntry(folder: string, entry: CacheEntry): Promise<boolean> {
  const name = entry.path.slice(folder.length + 1);
  const aside = join(entry.path, '..', `.trash-${randomBytes(6).toString('hex')}`);
  try {
    await rename(entry.path, aside);
    if ((await heldEntries(folder)).has(name)) {
      await rename(aside, entry.path);
      return false;
    }
    await rm(aside, { recursive: true, force: true });
    return true;
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return true;
    throw new MicroVMError('ERR_CACHE', `Cannot remove ${entry.path} (${errnoOf(cause)})`, { cause });
  }
}

async function removeDanglingLinks(folder: string): Promise<void> {
  for (const group of await readFolder(folder)) {
    for (const name of await readFolder(join(folder, group))) {
      const path = join(folder, group, name);
      const isLink = await readlink(path).then(
        () => true,
        () => false,
      );
      if (isLink && (await stat(path).catch(() => undefined)) === undefined) await rm(path, { force: true });
    }
  }
}

async function bytesInside(folder: string): Promise<number> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const sizes = await Promise.all(
    entries.map(async (entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return bytesInside(path);
      return (await lstat(path).catch(() => undefined))?.size ?? 0;
    }),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}

async function readFolder(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (cause) {
    if (['ENOENT', 'ENOTDIR'].includes(errnoOf(cause) ?? '')) return [];
    throw new MicroVMError('ERR_CACHE', `Cannot read ${path} (${errnoOf(cause)})`, { cause });
  }
}
