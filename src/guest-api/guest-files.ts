// Files of the guest, by the names of `node:fs/promises`.

import { constants } from 'node:fs';
import { Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { posix } from 'node:path';
import {
  argumentProblems,
  contentProblems,
  fileOptionProblems,
  modeProblems,
  numberProblems,
  pathProblems,
  rangeProblems,
  refuse,
} from '../config/file-options.ts';
import { MicroVMError } from '../errors.ts';
import type { AgentApi } from './agent-api.ts';
import { copyIn, copyOut, type CopyOptions, type CopyOutOptions, type CopyResult } from './copy.ts';
import { fileError } from './file-error.ts';
import type {
  AppendOptions,
  FileContent,
  MkdirOptions,
  ReaddirOptions,
  ReadFileOptions,
  ReadStreamOptions,
  RmOptions,
  TextEncoding,
  WriteOptions,
  WriteStreamOptions,
} from './file-options.ts';
import { entriesOf, GuestDirent, GuestStats, record } from './file-status.ts';
import { AnswerBody, query, RequestBody } from './file-streams.ts';
import { type GuestWatcher, watch, type WatchOptions } from './watch.ts';

/** The longest answer to an operation, in bytes: a folder of about a million entries. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;
/** What `readFile` keeps, unless it is told otherwise: about the longest text that JavaScript can have. */
const MAX_FILE_BYTES = 512 * 1024 * 1024;
/** The largest user or group. */
const MAX_ID = 2 ** 32 - 1;
/** Of a mode, without the file's type. */
const PERMISSIONS = 0o7777;

/** Files of the guest. Paths are the guest's; relative ones start at `/`. Errors have the codes of `node:fs`. */
export class GuestFiles {
  readonly #api: AgentApi;

  /** @internal */
  constructor(api: AgentApi) {
    this.#api = api;
  }

  /**
   * All of a file. A FIFO or a device is read until its end, however long that takes.
   *
   * @throws {GuestFileError} what the guest's kernel refused
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS`, `ERR_FS_FILE_TOO_LARGE` over `maxBytes`
   */
  readFile(
    path: string,
    options: TextEncoding | (ReadFileOptions & { readonly encoding: TextEncoding }),
  ): Promise<string>;
  readFile(
    path: string,
    options?: 'buffer' | null | (ReadFileOptions & { readonly encoding?: 'buffer' | null | undefined }),
  ): Promise<Buffer>;
  readFile(path: string, options?: TextEncoding | 'buffer' | null | ReadFileOptions): Promise<string | Buffer>;
  async readFile(path: string, given: TextEncoding | 'buffer' | null | ReadFileOptions = {}): Promise<string | Buffer> {
    const options = withEncoding<ReadFileOptions>(given);
    refuse(pathProblems({ path }), fileOptionProblems('readFile', options));
    const { encoding, maxBytes = MAX_FILE_BYTES, signal } = options;
    const pieces: Buffer[] = [];
    let bytes = 0;
    for await (const piece of this.createReadStream(path, { signal }) as AsyncIterable<Buffer>) {
      bytes += piece.length;
      if (bytes > maxBytes) throw tooLarge(path, maxBytes);
      pieces.push(piece);
    }
    const content = Buffer.concat(pieces);
    return isText(encoding) ? content.toString() : content;
  }

  /**
   * Replaces a file's content, or adds to it, by the flag.
   *
   * @throws {GuestFileError} what the guest's kernel refused
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS`; `ERR_AGENT_TIMEOUT` when the guest takes nothing for a minute
   */
  async writeFile(path: string, content: FileContent, given: TextEncoding | WriteOptions = {}): Promise<void> {
    const options = withEncoding<WriteOptions>(given);
    // Before the file is opened, which empties it.
    refuse(pathProblems({ path }), contentProblems(content), fileOptionProblems('writeFile', options));
    const isHere = typeof content === 'string' || content instanceof Uint8Array;
    const source = isHere ? Readable.from([Buffer.from(content)]) : content;
    const { flag, ...streamOptions } = options;
    const { signal } = options;
    await pipeline(source, this.createWriteStream(path, { ...streamOptions, flags: flag }), signal ? { signal } : {});
  }

  /** Writes behind a file's content, as {@link writeFile} with the flag `'a'`. */
  async appendFile(path: string, content: FileContent, given: TextEncoding | AppendOptions = {}): Promise<void> {
    const options = withEncoding<AppendOptions>(given);
    refuse(pathProblems({ path }), contentProblems(content), fileOptionProblems('appendFile', options));
    await this.writeFile(path, content, { ...options, flag: 'a' });
  }

  /**
   * The content, or a part of it, as a stream. A reader that is slow costs a bounded number of bytes; one of a FIFO or a
   * device waits as long as these have nothing to read.
   *
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS`; what comes later destroys the stream
   */
  createReadStream(path: string, given: TextEncoding | 'buffer' | null | ReadStreamOptions = {}): Readable {
    const options = withEncoding<ReadStreamOptions>(given);
    refuse(pathProblems({ path }), fileOptionProblems('createReadStream', options), rangeProblems(options));
    const { encoding, start, end, signal } = options;
    const explain = (error: unknown): unknown => fileError(error, 'open', path);
    return new AnswerBody(this.#api, `/v1/file?${query({ path, start, end })}`, explain, {
      ...(isText(encoding) && { encoding }),
      ...(signal && { signal }),
    });
  }

  /**
   * A stream whose bytes become the content. It has finished when the guest has written all of them.
   *
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS`; what comes later destroys the stream
   */
  createWriteStream(path: string, options: WriteStreamOptions = {}): Writable {
    refuse(pathProblems({ path }), fileOptionProblems('createWriteStream', options));
    const { start, mode, flags, signal } = options;
    const request = `/v1/file?${query({ path, start, mode: permissions(mode), flag: flags })}`;
    const explain = (error: unknown): unknown => fileError(error, 'open', path);
    return new RequestBody(this.#api, request, explain, signal ? { signal } : {});
  }

  /**
   * Copies a file or folder of this host into the guest, with modes, links, holes and times. As with `docker cp`: into a
   * folder that is there, under its own name; `folder/.` copies the contents of a folder without itself.
   *
   * @param hostPath - on this host
   * @param guestPath - in the guest
   * @throws {GuestFileError} what the guest's kernel refused, with the guest's path
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS`, `ERR_COPY_FILE` for a file of this host, `ERR_COPY_CHANGED`,
   *   `ERR_COPY_REFUSED` where a symbolic link of the guest is in the way
   */
  async copyIn(hostPath: string, guestPath: string, options: CopyOptions = {}): Promise<CopyResult> {
    refuse(pathProblems({ hostPath, guestPath }), fileOptionProblems('copyIn', options));
    return copyIn(this.#api, hostPath, guestPath, options);
  }

  /**
   * Copies a file or folder of the guest to this host; see {@link copyIn}. The guest is not trusted: nothing is written
   * outside of the target, no symbolic link in it is followed, and devices are refused.
   *
   * @param guestPath - in the guest
   * @param hostPath - on this host
   * @throws {GuestFileError} what the guest's kernel refused, with the guest's path
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS`, `ERR_COPY_FILE` for a file of this host, `ERR_COPY_LIMIT`,
   *   `ERR_COPY_REFUSED`, `ERR_COPY_ARCHIVE`, `ERR_COPY_CHANGED`
   */
  async copyOut(guestPath: string, hostPath: string, options: CopyOutOptions = {}): Promise<CopyResult> {
    refuse(pathProblems({ guestPath, hostPath }), fileOptionProblems('copyOut', options));
    return copyOut(this.#api, guestPath, hostPath, options);
  }

  /**
   * Tells what changes at a path, as `node:fs/promises` does, by the guest's inotify. It watches from `ready` on.
   *
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS` at once; what comes later rejects the iteration
   */
  watch(path: string, options: WatchOptions = {}): GuestWatcher {
    refuse(pathProblems({ path }), fileOptionProblems('watch', options));
    return watch(this.#api, path, options);
  }

  /** The first folder that was made, with `recursive`. */
  async mkdir(path: string, options: MkdirOptions = {}): Promise<string | undefined> {
    refuse(pathProblems({ path }), fileOptionProblems('mkdir', options));
    const { recursive = false, mode = 0o777 } = options;
    const { path: first } = await this.#operate('mkdir', { path, recursive, mode: mode & PERMISSIONS });
    return recursive && typeof first === 'string' ? first : undefined;
  }

  /** Makes a folder whose name is the prefix and six characters that no other has. Gives its path. */
  async mkdtemp(prefix: string): Promise<string> {
    refuse(pathProblems({ prefix }));
    return pathIn(await this.#operate('mkdtemp', { path: prefix }, { of: `${prefix}XXXXXX` }));
  }

  /** What is in a folder, sorted: names, or entries with their kinds. */
  readdir(path: string, options?: ReaddirOptions & { readonly withFileTypes?: false | undefined }): Promise<string[]>;
  readdir(path: string, options: ReaddirOptions & { readonly withFileTypes: true }): Promise<GuestDirent[]>;
  readdir(path: string, options?: ReaddirOptions): Promise<string[] | GuestDirent[]>;
  async readdir(path: string, options: ReaddirOptions = {}): Promise<string[] | GuestDirent[]> {
    refuse(pathProblems({ path }), fileOptionProblems('readdir', options));
    const { withFileTypes = false, recursive = false } = options;
    const { entries } = await this.#operate('readdir', { path, recursive }, { syscall: 'scandir' });
    const list = entriesOf(entries);
    if (!withFileTypes) return list.map(({ name }) => name);
    return list.map(({ name, kind }) => {
      const whole = posix.join(path, name);
      return new GuestDirent(posix.basename(whole), posix.dirname(whole), kind);
    });
  }

  /**
   * Resolves where a path leads to something that may be used so; root may nearly everything.
   *
   * @param mode - `R_OK`, `W_OK` and `X_OK` of `node:fs`'s constants; none asks only whether it is there
   */
  async access(path: string, mode: number = constants.F_OK): Promise<void> {
    refuse(pathProblems({ path }), numberProblems({ mode }, constants.R_OK | constants.W_OK | constants.X_OK));
    await this.#operate('access', { path, mode });
  }

  async stat(path: string): Promise<GuestStats> {
    refuse(pathProblems({ path }));
    return new GuestStats((await this.#operate('stat', { path }))['status']);
  }

  /** The same of a symbolic link itself. */
  async lstat(path: string): Promise<GuestStats> {
    refuse(pathProblems({ path }));
    return new GuestStats((await this.#operate('lstat', { path }))['status']);
  }

  async rename(path: string, to: string): Promise<void> {
    refuse(pathProblems({ path, to }));
    await this.#operate('rename', { path, to }, { dest: to });
  }

  /** Removes a file, or with `recursive` a folder: without it a folder is `EISDIR`, where Node has `ERR_FS_EISDIR`. */
  async rm(path: string, options: RmOptions = {}): Promise<void> {
    refuse(pathProblems({ path }), fileOptionProblems('rm', options));
    const { recursive = false, force = false } = options;
    await this.#operate('rm', { path, recursive, force });
  }

  /**
   * Copies the content and the permissions of a file within the guest.
   *
   * @param mode - `COPYFILE_EXCL` of `node:fs`'s constants where the target may not be there; `COPYFILE_FICLONE` is what is done
   *   anyway where the guest's file system can
   */
  async copyFile(src: string, dest: string, mode: number = 0): Promise<void> {
    const { COPYFILE_EXCL, COPYFILE_FICLONE } = constants;
    refuse(pathProblems({ src, dest }), numberProblems({ mode }, COPYFILE_EXCL | COPYFILE_FICLONE));
    const fields = { path: src, to: dest, exclusive: (mode & COPYFILE_EXCL) !== 0 };
    await this.#operate('copyFile', fields, { syscall: 'copyfile', dest });
  }

  /** Removes an empty folder. */
  async rmdir(path: string): Promise<void> {
    refuse(pathProblems({ path }));
    await this.#operate('rmdir', { path });
  }

  /** Removes a file or a symbolic link. */
  async unlink(path: string): Promise<void> {
    refuse(pathProblems({ path }));
    await this.#operate('rm', { path, recursive: false, force: false }, { syscall: 'unlink' });
  }

  /** Cuts a file off, or lengthens it with zeros. */
  async truncate(path: string, len: number = 0): Promise<void> {
    refuse(pathProblems({ path }), numberProblems({ len }, Number.MAX_SAFE_INTEGER));
    await this.#operate('truncate', { path, size: len }, { syscall: 'open' });
  }

  /** @param mode - permissions, 0 to 0o7777; the file type's bits, which a `mode` of {@link stat} has, are left out */
  async chmod(path: string, mode: number): Promise<void> {
    refuse(pathProblems({ path }), modeProblems(mode));
    await this.#operate('chmod', { path, mode: mode & PERMISSIONS });
  }

  async chown(path: string, uid: number, gid: number): Promise<void> {
    refuse(pathProblems({ path }), numberProblems({ uid, gid }, MAX_ID));
    await this.#operate('chown', { path, uid, gid });
  }

  /** Gives a file another name: a hard link. */
  async link(existingPath: string, newPath: string): Promise<void> {
    refuse(pathProblems({ existingPath, newPath }));
    await this.#operate('link', { path: existingPath, to: newPath }, { dest: newPath });
  }

  async symlink(target: string, path: string): Promise<void> {
    refuse(pathProblems({ target, path }));
    await this.#operate('symlink', { path, target }, { of: target, dest: path });
  }

  async readlink(path: string): Promise<string> {
    refuse(pathProblems({ path }));
    return pathIn(await this.#operate('readlink', { path }));
  }

  /** The path without symbolic links, `.` and `..`. */
  async realpath(path: string): Promise<string> {
    refuse(pathProblems({ path }));
    return pathIn(await this.#operate('realpath', { path }));
  }

  /** Numbers are seconds since 1970, as with `node:fs`. */
  async utimes(path: string, accessed: Date | number, modified: Date | number): Promise<void> {
    const seconds = (time: Date | number): number => (time instanceof Date ? time.getTime() / 1000 : time);
    const times = { accessed: seconds(accessed), modified: seconds(modified) };
    refuse(pathProblems({ path }), argumentProblems(times, Number.isFinite, 'a Date, or seconds since 1970'));
    const fields = { path, accessed: time(times.accessed), modified: time(times.modified) };
    await this.#operate('utimes', fields, { syscall: 'utime' });
  }

  /** `of` and `dest` are the paths that an error is about. */
  async #operate(
    operation: string,
    fields: { readonly path: string; readonly [name: string]: unknown },
    {
      syscall = operation,
      of = fields.path,
      dest,
    }: { readonly syscall?: string; readonly of?: string; readonly dest?: string } = {},
  ): Promise<Readonly<Record<string, unknown>>> {
    try {
      const stream = await this.#api.open('POST', '/v1/files');
      stream.end(JSON.stringify({ operation, ...fields }));
      await this.#api.answerTo(stream);
      const outcome = parsed(await this.#api.text(stream, MAX_ANSWER_BYTES));
      return outcome === 'done' ? {} : record(outcome);
    } catch (error) {
      throw fileError(error, syscall, of, dest);
    }
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MicroVMError('ERR_AGENT_PROTOCOL', 'The agent sent something that is not JSON', { cause });
  }
}

/** The path that an operation gave. */
function pathIn({ path }: Readonly<Record<string, unknown>>): string {
  if (typeof path === 'string') return path;
  throw new MicroVMError('ERR_AGENT_PROTOCOL', 'The agent did not send a path');
}

/** As the kernel has it: nanoseconds count forward, before 1970 too. */
function time(seconds: number): { readonly seconds: number; readonly nanoseconds: number } {
  const whole = Math.floor(seconds);
  // The thousandth of a millisecond is where a number of seconds ends to be exact.
  return { seconds: whole, nanoseconds: Math.min(Math.round((seconds - whole) * 1e6) * 1000, 999_999_000) };
}

/** Options of which the encoding may be all that is given. */
function withEncoding<Options extends object>(given: Options | string | null): Options {
  return (typeof given === 'string' || given === null ? { encoding: given } : given) as Options;
}

function isText(encoding: string | null | undefined): encoding is TextEncoding {
  return encoding === 'utf8' || encoding === 'utf-8';
}

function permissions(mode: number | undefined): number | undefined {
  return mode === undefined ? undefined : mode & PERMISSIONS;
}

function tooLarge(path: string, maxBytes: number): MicroVMError {
  return new MicroVMError('ERR_FS_FILE_TOO_LARGE', `${path} in the guest has more than ${maxBytes} bytes`, {
    hint: 'Read it by createReadStream, or raise maxBytes.',
  });
}
