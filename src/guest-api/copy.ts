// Files and folders between this host and the guest, as tar streams that are packed and unpacked as they flow: a slow end
// holds the other one back, and nothing is kept but what is on its way.

import type { ClientHttp2Stream } from 'node:http2';
import { pipeline } from 'node:stream/promises';
import { MicroVMError, type MicroVMErrorCode } from '../errors.ts';
import { archiveName, type CopyProgress, packTree, unpackTree } from '../host/archive.ts';
import { aborted } from './aborted.ts';
import { type AgentApi, destroy } from './agent-api.ts';
import { fileError } from './file-error.ts';
import { query, RequestBody } from './file-streams.ts';
import { AgentRefusal } from './refusal.ts';

export type { CopyProgress } from '../host/archive.ts';

/** So much is packed while the guest takes what came before. */
const AHEAD_BYTES = 512 * 1024;
/** A guest that sends without end is not to fill this host. */
const MAX_BYTES = 16 * 2 ** 30;
const MAX_ENTRIES = 1_000_000;

/** The agent's own refusals, as this package's errors. */
const CODES: Readonly<Record<string, MicroVMErrorCode>> = {
  refused: 'ERR_COPY_REFUSED',
  archive: 'ERR_COPY_ARCHIVE',
  changed: 'ERR_COPY_CHANGED',
};

export interface CopyOptions {
  /** Ends the copy early; what was copied by then stays. */
  readonly signal?: AbortSignal | undefined;
  /** Called as the copy goes on: once for each piece of some hundred KiB, which may hold many files. */
  readonly onProgress?: ((progress: CopyProgress) => void) | undefined;
  /**
   * Give files the owners that they have at their source, by number, and keep their set-id bits. To this host that takes
   * root.
   * @default false: they belong to root in the guest, and to the user of this process here
   */
  readonly preserveOwner?: boolean | undefined;
  /**
   * What is left out: names such as `'*.log'` at any depth, with a slash paths from the copied folder on (`'/build'`,
   * `'src/**.o'`); one at the end means folders alone.
   * @default []
   */
  readonly exclude?: readonly string[] | undefined;
}

export interface CopyOutOptions extends CopyOptions {
  /**
   * The most bytes of content that the guest may send, holes included.
   * @default 17179869184, which is 16 GiB
   */
  readonly maxBytes?: number | undefined;
  /**
   * The most files, folders and links that the guest may send.
   * @default 1000000
   */
  readonly maxEntries?: number | undefined;
}

/** What was copied. */
export interface CopyResult {
  /** Files, folders and links. */
  readonly entries: number;
  /** Bytes of content; holes of sparse files do not count. */
  readonly bytes: number;
}

/** See `GuestFiles.copyIn`. */
export async function copyIn(
  api: AgentApi,
  hostPath: string,
  guestPath: string,
  { signal, onProgress, preserveOwner, exclude = [] }: CopyOptions,
): Promise<CopyResult> {
  let result: CopyResult = { entries: 0, bytes: 0 };
  const archive = packTree(hostPath, exclude, (progress) => {
    const { entries, bytes } = progress;
    result = { entries, bytes };
    onProgress?.(progress);
  });
  await sendArchive(api, archive, guestPath, { signal, preserveOwner, name: archiveName(hostPath) });
  return result;
}

/** Has the guest unpack a tar stream at a path: into that folder where no `name` is given. */
export async function sendArchive(
  api: AgentApi,
  archive: AsyncIterable<Buffer>,
  guestPath: string,
  {
    signal,
    preserveOwner,
    name,
  }: Pick<CopyOptions, 'signal' | 'preserveOwner'> & { readonly name?: string | undefined },
): Promise<void> {
  const owner = preserveOwner ? 'keep' : undefined;
  const request = `/v1/archive?${query({ path: guestPath, name, owner })}`;
  const body = new RequestBody(api, request, (error) => copyError(error, guestPath), { highWaterMark: AHEAD_BYTES });
  await pipeline(archive, body, signal ? { signal } : {});
}

/** See `GuestFiles.copyOut`. */
export async function copyOut(
  api: AgentApi,
  guestPath: string,
  hostPath: string,
  options: CopyOutOptions,
): Promise<CopyResult> {
  const {
    signal,
    onProgress,
    preserveOwner = false,
    exclude,
    maxBytes = MAX_BYTES,
    maxEntries = MAX_ENTRIES,
  } = options;
  const target = { destination: hostPath, name: archiveName(guestPath), owner: preserveOwner, maxBytes, maxEntries };
  const archive = receiveArchive(api, guestPath, { signal, exclude });
  const { entries, bytes } = await unpackTree(archive, target, onProgress);
  return { entries, bytes };
}

/** A file or folder of the guest as a tar stream. Leaving early ends the request. */
export async function* receiveArchive(
  api: AgentApi,
  guestPath: string,
  { signal, exclude }: Pick<CopyOptions, 'signal' | 'exclude'>,
): AsyncGenerator<Buffer> {
  let stream: ClientHttp2Stream | undefined;
  let isHandedOn = false;
  const abort = (): void => void (stream && signal && destroy(stream, aborted(signal)));
  signal?.addEventListener('abort', abort, { once: true });
  try {
    if (signal?.aborted) throw aborted(signal);
    const patterns = exclude?.length ? exclude.join('\0') : undefined;
    stream = await api.open('GET', `/v1/archive?${query({ path: guestPath, exclude: patterns })}`);
    if (signal?.aborted) throw aborted(signal);
    stream.end();
    await api.answerTo(stream);
    for await (const piece of api.pieces(stream, 'the files')) {
      isHandedOn = true;
      yield piece;
      isHandedOn = false;
    }
    if (signal?.aborted) throw aborted(signal);
  } catch (error) {
    if (signal?.aborted) throw aborted(signal);
    // What the reader throws in is its own.
    if (isHandedOn) throw error;
    throw copyError(stream ? await api.explain(error, stream) : error, guestPath);
  } finally {
    signal?.removeEventListener('abort', abort);
    if (stream && !stream.readableEnded) destroy(stream);
  }
}

function copyError(error: unknown, guestPath: string): unknown {
  const code = error instanceof AgentRefusal ? CODES[error.code] : undefined;
  if (code === undefined || !(error instanceof Error)) return fileError(error, 'copy', guestPath);
  return new MicroVMError(code, `The guest cannot copy ${guestPath}: ${error.message}`, { cause: error });
}
