// Writes a folder into a cpio archive.

import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { MicroVMError, errnoOf } from '../errors.ts';
import type { CpioEntry, CpioWriter } from './cpio.ts';
import { deviceOf, type FolderEntry } from './folder-entries.ts';

const CHUNK_BYTES = 2 ** 20;
const MAX_MTIME = 0xffff_ffffn;

/** Adds entries as they were listed. Rejects when a file has changed since. */
export async function packEntries(
  writer: CpioWriter,
  entries: readonly FolderEntry[],
  signal?: AbortSignal,
): Promise<void> {
  const links = new HardLinks(entries);
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  for (const entry of entries) {
    signal?.throwIfAborted();
    const { stat, target } = entry;
    const hardLink = links.of(entry);
    const header: CpioEntry = {
      name: entry.name,
      mode: Number(stat.mode),
      mtime: Number(clampTime(stat.mtimeMs / 1000n)),
      ...(hardLink && { hardLink }),
      ...((stat.isCharacterDevice() || stat.isBlockDevice()) && { device: deviceOf(stat) }),
    };
    if (stat.isFile() && !hardLink?.isRepeated) await packFile(writer, header, entry, chunk);
    else await writer.add(header, target);
  }
}

async function packFile(writer: CpioWriter, header: CpioEntry, entry: FolderEntry, chunk: Buffer): Promise<void> {
  const file = await openUnchanged(entry);
  try {
    const size = Number(entry.stat.size);
    await writer.begin({ ...header, size });
    for (let position = 0; position < size;) {
      const { bytesRead } = await file.read(chunk, 0, Math.min(chunk.length, size - position), position);
      if (bytesRead === 0) throw changed(entry);
      await writer.write(chunk.subarray(0, bytesRead));
      position += bytesRead;
    }
  } finally {
    await file.close();
  }
}

/** Opens the very file that was listed: not a link put in its place, nor a pipe that would block. */
async function openUnchanged(entry: FolderEntry): Promise<FileHandle> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const file = await open(entry.path, flags).catch((cause: unknown) => {
    if (errnoOf(cause) === 'ELOOP' || errnoOf(cause) === 'ENOENT') throw changed(entry);
    const message = `Cannot read ${entry.path.toString()} of the root file system (${errnoOf(cause)})`;
    throw new MicroVMError('ERR_ROOTFS_MISSING', message, { cause });
  });
  const { dev, ino, size, mtimeNs } = await file.stat({ bigint: true });
  const { stat } = entry;
  if (dev === stat.dev && ino === stat.ino && size === stat.size && mtimeNs === stat.mtimeNs) return file;
  await file.close();
  throw changed(entry);
}

function changed({ path }: FolderEntry): MicroVMError {
  return new MicroVMError('ERR_ROOTFS_INVALID', `${path.toString()} was changed while it was packed`, {
    hint: 'Wait until nothing writes to the folder any more, or give a copy of it.',
  });
}

function clampTime(seconds: bigint): bigint {
  if (seconds < 0n) return 0n;
  return seconds > MAX_MTIME ? MAX_MTIME : seconds;
}

/** Names of one file stay one file in the guest. Only names inside the folder count. */
class HardLinks {
  readonly #files = new Map<string, { readonly id: number; count: number; isWritten: boolean }>();

  constructor(entries: readonly FolderEntry[]) {
    for (const { stat } of entries) {
      if (!stat.isFile() || stat.nlink < 2n) continue;
      const key = `${stat.dev}:${stat.ino}`;
      const known = this.#files.get(key);
      if (known) known.count += 1;
      else this.#files.set(key, { id: this.#files.size + 1, count: 1, isWritten: false });
    }
  }

  of({ stat }: FolderEntry): { id: number; count: number; isRepeated: boolean } | undefined {
    const file = this.#files.get(`${stat.dev}:${stat.ino}`);
    if (!file || file.count < 2) return undefined;
    const isRepeated = file.isWritten;
    file.isWritten = true;
    return { id: file.id, count: file.count, isRepeated };
  }
}
