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
  /** Pieces of text, none cut within a character, or with `'buffer'`, null and none Buffers. @default null */
  readonly encoding?: TextEncoding | 'buffer' | null | undefined;
  /** First byte. @default 0 */
  readonly start?: number | undefined;
  /** Last byte, not before `start`. @default the last one there is */
  readonly end?: number | undefined;
}

export interface AppendOptions {
  /** Of text. @default 'utf8' */
  readonly encoding?: TextEncoding | null | undefined;
  /**
   * Permissions of a new file: 0 to 0o7777, less what the guest's umask (022) takes. The file type's bits, which a `mode` of
   * `stat` has, are left out.
   * @default 0o666
   */
  readonly mode?: number | undefined;
  /** Ends the operation early; what was written by then stays. */
  readonly signal?: AbortSignal | undefined;
}

export interface WriteOptions extends AppendOptions {
  /** @default 'w', which replaces the content */
  readonly flag?: WriteFlag | undefined;
}

export interface WriteStreamOptions extends AppendOptions {
  /** The flag, by the name that Node has for streams. @default 'w', which replaces the content */
  readonly flags?: WriteFlag | undefined;
  /** First byte to write; with the flag `'r+'` the rest of the file stays. @default 0 */
  readonly start?: number | undefined;
}

export interface MkdirOptions {
  /** Make the folders above it, too; one that is there is no error then. @default false */
  readonly recursive?: boolean | undefined;
  /** Permissions, 0 to 0o7777, less what the guest's umask (022) takes; bits of a file's type are left out. @default 0o777 */
  readonly mode?: number | undefined;
}

export interface ReaddirOptions {
  /** Entries with their kinds instead of names. @default false */
  readonly withFileTypes?: boolean | undefined;
  /** What is in the folders below, too. @default false */
  readonly recursive?: boolean | undefined;
}

export interface RmOptions {
  /** A folder with all that is in it. Without it a folder is `EISDIR`, an empty one too. @default false */
  readonly recursive?: boolean | undefined;
  /** What is not there is no error. @default false */
  readonly force?: boolean | undefined;
}

/** What can be written. */
export type FileContent =
  | string
  | Uint8Array
  | Readable
  | AsyncIterable<string | Uint8Array>
  | Iterable<string | Uint8Array>;
