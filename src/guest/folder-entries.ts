// Lists a folder that is to become a root file system. Symbolic links are listed as such and never followed, so nothing outside gets in.

import type { BigIntStats } from 'node:fs';
import { lstat, readdir, readlink } from 'node:fs/promises';
import { MicroVMError, errnoOf } from '../errors.ts';
import { MAX_NAME_BYTES } from './cpio.ts';

/** One file of a folder. Paths are bytes: names need not be UTF-8. */
export interface FolderEntry {
  /** Path in the folder, without a leading slash. */
  readonly name: Buffer;
  /** Path on this host. */
  readonly path: Buffer;
  readonly stat: BigIntStats;
  /** Where a symbolic link points. */
  readonly target: Buffer | undefined;
}

const TYPE_BITS = 0o170000;
const SOCKET = 0o140000;
const MAX_FILE_BYTES = 2n ** 32n - 1n;

/** All that is in `root`, folders before their contents, names in order of their bytes. */
export async function listFolder(root: string, signal?: AbortSignal): Promise<FolderEntry[]> {
  return listInside(root, Buffer.from(root), Buffer.alloc(0), signal);
}

async function listInside(
  root: string,
  folder: Buffer,
  prefix: Buffer,
  signal: AbortSignal | undefined,
): Promise<FolderEntry[]> {
  signal?.throwIfAborted();
  const names = await readdir(folder, { encoding: 'buffer' }).catch((cause: unknown) => {
    throw unreadable(folder, cause);
  });
  names.sort(Buffer.compare);
  const entries = await Promise.all(names.map((name) => describe(root, join(folder, name), join(prefix, name))));
  const lists: FolderEntry[] = [];
  for (const entry of entries) {
    lists.push(entry);
    if (!entry.stat.isDirectory()) continue;
    // One by one, not with spread arguments: a folder may hold more than a call can take.
    for (const inner of await listInside(root, entry.path, entry.name, signal)) lists.push(inner);
  }
  return lists;
}

async function describe(root: string, path: Buffer, name: Buffer): Promise<FolderEntry> {
  try {
    const stat = await lstat(path, { bigint: true });
    if (name.length > MAX_NAME_BYTES)
      throw unpackable(path, `its path in ${root} is longer than ${MAX_NAME_BYTES} bytes`);
    if ((Number(stat.mode) & TYPE_BITS) === SOCKET) throw unpackable(path, 'it is a socket; remove it, or its owner');
    if (stat.isFile() && stat.size > MAX_FILE_BYTES) throw unpackable(path, 'it is larger than 4 GiB');
    return {
      name,
      path,
      stat,
      target: stat.isSymbolicLink() ? await readlink(path, { encoding: 'buffer' }) : undefined,
    };
  } catch (cause) {
    throw cause instanceof MicroVMError ? cause : unreadable(path, cause);
  }
}

/** What an entry adds to an initramfs. */
export function archivedBytes({ name, stat, target }: FolderEntry): number {
  return 120 + name.length + (stat.isFile() ? Number(stat.size) : (target?.length ?? 0));
}

/** The device number of a node, in Linux's encoding of st_rdev. */
export function deviceOf({ rdev }: BigIntStats): { major: number; minor: number } {
  return {
    major: Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n)),
    minor: Number((rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n)),
  };
}

function join(folder: Buffer, name: Buffer): Buffer {
  return folder.length === 0 ? name : Buffer.concat([folder, Buffer.from('/'), name]);
}

function unreadable(path: Buffer, cause: unknown): MicroVMError {
  const message = `Cannot read ${path.toString()} of the root file system (${errnoOf(cause) ?? String(cause)})`;
  return new MicroVMError('ERR_ROOTFS_MISSING', message, { cause });
}

function unpackable(path: Buffer, why: string): MicroVMError {
  return new MicroVMError('ERR_ROOTFS_INVALID', `Cannot pack ${path.toString()} into the initramfs: ${why}`);
}
