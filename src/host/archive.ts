// Trees of this host's files as tar streams, by the addon. It opens everything relative to the folder that it works in and
// follows no link there, which Node's own file system calls cannot.

import { MicroVMError } from '../errors.ts';
import { fromNative } from '../native-error.ts';
import { loadBinding } from '../native.ts';

/** Bytes that are packed at once. */
const CHUNK_BYTES = 256 * 1024;

/** How far a copy has come. */
export interface CopyProgress {
  /** Files, folders and links so far. */
  readonly entries: number;
  /** Bytes of content so far; holes of sparse files do not count. */
  readonly bytes: number;
  /** The newest of them, relative to the source's own folder. */
  readonly path: string;
}

/** How an archive is unpacked. */
export interface UnpackOptions {
  /** Where to; see docs/files.md for what that means with a folder that is there. */
  readonly destination: string;
  /** What all names in the archive must begin with, as `archiveName` gives it; undefined for an archive of contents. */
  readonly name: string | undefined;
  /** Give files the owners that the archive names. */
  readonly owner: boolean;
  /** The most bytes of content, holes included. */
  readonly maxBytes: number;
  /** The most files, folders and links. */
  readonly maxEntries: number;
}

type Listener = (progress: CopyProgress) => void;

/** What the thing at a path is called in an archive; undefined where its contents are meant, as with `folder/.` and `/`. */
export function archiveName(path: string): string | undefined {
  return loadBinding().archiveName(path) ?? undefined;
}

/**
 * Packs a file or folder, as fast as it is asked for more.
 *
 * @throws {MicroVMError} `ERR_COPY_FILE`, `ERR_COPY_CHANGED`
 */
export async function* packTree(
  source: string,
  exclude: readonly string[],
  onProgress: Listener = () => {},
): AsyncGenerator<Buffer> {
  const packer = loadBinding().packTree(source, [...exclude]);
  try {
    for (;;) {
      const { chunk, ...progress } = await packer.next(CHUNK_BYTES).catch(explain);
      if (!chunk) return;
      onProgress(progress);
      yield chunk;
    }
  } finally {
    packer.close();
  }
}

/**
 * Unpacks an archive whose maker is not trusted: nothing is written outside of the destination.
 *
 * @throws {MicroVMError} `ERR_COPY_FILE`, `ERR_COPY_REFUSED`, `ERR_COPY_LIMIT`, `ERR_COPY_ARCHIVE`; what the source throws
 */
export async function unpackTree(
  source: AsyncIterable<Buffer>,
  options: UnpackOptions,
  onProgress: Listener = () => {},
): Promise<CopyProgress> {
  const { name, ...rest } = options;
  const unpacker = loadBinding().unpackTree({ ...rest, ...(name !== undefined && { name }) });
  try {
    for await (const chunk of source) onProgress(await unpacker.push(chunk).catch(explain));
    return await unpacker.finish().catch(explain);
  } finally {
    unpacker.close();
  }
}

function explain(error: unknown): never {
  const explained = fromNative(error);
  throw explained.code === 'ERR_COPY_LIMIT'
    ? new MicroVMError(explained.code, explained.message, {
        cause: error,
        hint: 'Give maxBytes or maxEntries if the copy is meant to be that large.',
      })
    : explained;
}
