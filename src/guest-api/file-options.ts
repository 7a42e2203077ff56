// Options of `vm.fs`, as `node:fs/promises` has them.

import type { Readable } from 'node:stream';

/** How a file is opened for writing, as with `node:fs`. */
export type WriteFlag = 'w' | 'wx' | 'a' | 'ax' | 'r+';

/** Text is UTF-8. */
export type TextEncoding = 'utf8' | 'utf-8';

export interface ReadOptions {
  /** Ends the operation early. */
  readonly signal?: AbortSignal | undefined;
}

export interface ReadFileOptions extends ReadOptions {
  /** Text, or with `'buffer'`, null and none a Buffer. @default null */
  readonly encoding?: TextEncoding | 'buffer' | null | undefined;
  /**
   * The most bytes that the guest may send: more are `ERR_FS_FILE_TOO_LARGE`.
   * @default 536870912, which is 512 MiB: about the longest text that JavaScript can have
   */
  readonly maxBytes?: number | undefined;
}

export interface ReadStreamOptions extends ReadOptions {
  /** First byte. @default 0 */
  readonly start?: number | undefined;
  /** Last byte. @default the last one there is */
  readonly end?: number | undefined;
}

export interface AppendOptions {
  /** Of text. @default 'utf8' */
  readonly encoding?: TextEncoding | null | undefined;
  /** Permissions of a new file. @default 0o666, less what the guest's umask (022) takes */
  readonly mode?: number | undefined;
  /** Ends the operation early; what was written by then stays. */
  readonly signal?: AbortSignal | undefined;
}

export interface WriteOptions extends AppendOptions {
  /** @default 'w', which replaces the content */
  readonly flag?: WriteFlag | undefined;
}

export interface WriteStreamOptions extends WriteOptions {
  /** Where to write from; with the flag `'r+'` the rest of the file stays. @default 0 */
  readonly start?: number | undefined;
}

/** What can be written. */
export type FileContent = string | Uint8Array | Readable | AsyncIterable<string | Uint8Array> | Iterable<Uint8Array>;
