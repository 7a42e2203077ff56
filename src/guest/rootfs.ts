// What goes into the initramfs besides the agent: nothing, a folder, or a cpio archive.

import { createReadStream } from 'node:fs';
import { open, realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { cacheFolder } from '../cache/folder.ts';
import type { RootfsSpec } from '../config/machine-spec.ts';
import { MicroVMError, errnoOf } from '../errors.ts';
import { CpioWriter, type Sink } from './cpio.ts';
import { copyCpio } from './cpio-check.ts';
import { archivedBytes, type FolderEntry, listFolder } from './folder-entries.ts';
import { packEntries } from './pack-folder.ts';

/** A root file system that was found and can be packed. */
export interface RootfsSource {
  /** Changes when anything of it changes. */
  readonly identity: readonly unknown[];
  /** Bytes it adds to the initramfs, as far as that shows without reading it. */
  readonly leastBytes: number;
  /** Writes it as one or more cpio archives. */
  write(sink: Sink, signal?: AbortSignal): Promise<void>;
}

const NOTHING: RootfsSource = { identity: ['none'], leastBytes: 0, write: () => Promise.resolve() };

/** Looks at the root file system; rejects with `ERR_ROOTFS_…` or `ERR_USERLAND_MISSING`. */
export async function openRootfs(spec: RootfsSpec, signal?: AbortSignal): Promise<RootfsSource> {
  // What is shared is not packed.
  if (spec.kind === 'none' || spec.kind === 'share') return NOTHING;
  if (spec.kind === 'default') return openUserland(signal);
  const found = await stat(spec.path).catch((cause: unknown) => {
    throw missing(spec.path, cause);
  });
  if (found.isDirectory()) return openFolder(await realpath(spec.path), signal);
  if (found.isFile()) return openArchive(spec.path);
  throw new MicroVMError('ERR_ROOTFS_INVALID', `The root file system ${spec.path} is neither a folder nor a file`);
}

/** Where the set-up links the default userland. */
export function cachedUserland(): string {
  return join(cacheFolder(), 'guest', 'userland-current');
}

/** The userland's folder is named by a hash of its content and never changes, so that its files need not be listed each time. */
async function openUserland(signal?: AbortSignal): Promise<RootfsSource> {
  const link = cachedUserland();
  const path = await realpath(link).catch((cause: unknown) => {
    throw new MicroVMError('ERR_USERLAND_MISSING', `The default userland is not in the cache (${link})`, {
      cause,
      hint: "Let `npm start` in the project's checkout make it, or give the rootfs option a folder, a cpio archive or 'none'.",
    });
  });
  const { mtimeNs, ctimeNs } = await stat(path, { bigint: true });
  return {
    identity: ['userland', path, String(mtimeNs), String(ctimeNs)],
    leastBytes: 0,
    write: async (sink) => writeEntries(await listFolder(path, signal), sink, signal),
  };
}

async function openFolder(path: string, signal?: AbortSignal): Promise<RootfsSource> {
  const entries = await listFolder(path, signal);
  return {
    identity: ['folder', path, ...entries.map(entryIdentity)],
    leastBytes: entries.reduce((sum, entry) => sum + archivedBytes(entry), 0),
    write: (sink) => writeEntries(entries, sink, signal),
  };
}

/** Sizes and times stand for the content: reading every file each time would cost more than packing it. ctime cannot be set back. */
function entryIdentity({ name, stat, target }: FolderEntry): unknown {
  const { mode, size, mtimeNs, ctimeNs, rdev, nlink } = stat;
  const isFolder = stat.isDirectory();
  // A folder's own times change with its contents, which are listed anyway.
  const numbers = isFolder ? [mode] : [mode, size, mtimeNs, ctimeNs, rdev, nlink];
  return [name.toString('latin1'), target?.toString('latin1'), ...numbers.map(String)];
}

async function writeEntries(entries: readonly FolderEntry[], sink: Sink, signal?: AbortSignal): Promise<void> {
  const writer = new CpioWriter(sink);
  await packEntries(writer, entries, signal);
  await writer.end();
}

async function openArchive(path: string): Promise<RootfsSource> {
  const head = await readHead(path);
  const form = formOf(head);
  if (form !== 'cpio' && form !== 'gzip') {
    throw new MicroVMError('ERR_ROOTFS_INVALID', `The root file system ${path} is ${form}, not a cpio archive`, {
      hint: 'Give a folder, or an archive made with `find . | cpio --create --format=newc`, gzip optional.',
    });
  }
  const { size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
  return {
    identity: ['archive', path, String(size), String(mtimeNs), String(ctimeNs)],
    leastBytes: form === 'cpio' ? Number(size) : 0,
    write: async (sink, signal) => {
      const file = createReadStream(path, { ...(signal && { signal }) });
      // Unpacked here: it boots faster, and every byte can be checked.
      const bytes = form === 'gzip' ? pipeline(file, createGunzip(), () => {}) : file;
      await copyCpio(bytes, sink, path).catch((cause: unknown) => {
        file.destroy();
        throw explainRead(path, cause);
      });
    },
  };
}

function explainRead(path: string, cause: unknown): unknown {
  const code = errnoOf(cause);
  if (!code?.startsWith('Z_')) return cause;
  return new MicroVMError('ERR_ROOTFS_INVALID', `${path} is not a whole gzip file (${code})`, { cause });
}

async function readHead(path: string): Promise<Buffer> {
  try {
    const file = await open(path);
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(2048), 0, 2048, 0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (cause) {
    throw missing(path, cause);
  }
}

const FORMS: readonly (readonly [offset: number, magic: string, name: string])[] = [
  [0, '07070', 'cpio'],
  [0, '\x1f\x8b', 'gzip'],
  [0, '\x28\xb5\x2f\xfd', 'compressed with zstd'],
  [0, '\xfd7zXZ', 'compressed with xz'],
  [0, 'BZh', 'compressed with bzip2'],
  [0, '\x04\x22\x4d\x18', 'compressed with lz4'],
  [0, '\x02\x21\x4c\x18', 'compressed with lz4'],
  [0, 'hsqs', 'a squashfs image'],
  [0, 'QFI\xfb', 'a qcow2 image'],
  [257, 'ustar', 'a tar archive'],
  [1024, '\xe2\xe1\xf5\xe0', 'an EROFS image'],
  [1080, '\x53\xef', 'an ext4 image'],
];

function formOf(head: Buffer): string {
  if (head.length === 0) return 'empty';
  const found = FORMS.find(([at, magic]) => head.toString('latin1', at, at + magic.length) === magic);
  return found?.[2] ?? 'of an unknown form';
}

function missing(path: string, cause: unknown): MicroVMError {
  const errno = errnoOf(cause);
  const why = errno === 'ENOENT' ? 'does not exist' : `cannot be read (${errno})`;
  return new MicroVMError('ERR_ROOTFS_MISSING', `The root file system ${path} ${why}`, { cause });
}
