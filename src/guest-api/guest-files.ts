// Files of the guest, by the names of `node:fs/promises`.

import { Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { posix } from 'node:path';
import { copyOptionProblems } from '../config/copy-options.ts';
import { codeOf, invalidOptions } from '../config/problems.ts';
import { isPath, isWhole, PATH_RULE } from '../config/values.ts';
import { MicroVMError, type OptionProblem } from '../errors.ts';
import { type AgentApi, readText } from './agent-api.ts';
import { fileError } from './file-error.ts';
import { entriesOf, GuestDirent, GuestStats, record } from './file-status.ts';
import { query, readContent, RequestBody } from './file-streams.ts';
import { copyIn, copyOut, type CopyOptions, type CopyOutOptions, type CopyResult } from './copy.ts';
import { type GuestWatcher, watch, type WatchOptions } from './watch.ts';

/** The longest answer to an operation, in bytes: a folder of about a million entries. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/** How a file is opened for writing, as with `node:fs`. */
export type WriteFlag = 'w' | 'wx' | 'a' | 'ax' | 'r+';

export interface ReadOptions {
  /** Ends the operation early. */
  readonly signal?: AbortSignal | undefined;
}

export interface ReadStreamOptions extends ReadOptions {
  /** First byte. @default 0 */
  readonly start?: number | undefined;
  /** Last byte. @default the last one there is */
  readonly end?: number | undefined;
}

export interface WriteOptions {
  /** Permissions of a new file. @default 0o666, less what the guest's umask (022) takes */
  readonly mode?: number | undefined;
  /** @default 'w', which replaces the content */
  readonly flag?: WriteFlag | undefined;
  /** Ends the operation early; what was written by then stays. */
  readonly signal?: AbortSignal | undefined;
}

export interface WriteStreamOptions extends WriteOptions {
  /** Where to write from; with the flag `'r+'` the rest of the file stays. @default 0 */
  readonly start?: number | undefined;
}

/** What can be written. */
export type FileContent = string | Uint8Array | Readable | AsyncIterable<string | Uint8Array> | Iterable<Uint8Array>;

/** Files of the guest. Paths are the guest's; relative ones start at `/`. Errors have the codes of `node:fs`. */
export class GuestFiles {
  readonly #api: AgentApi;

  /** @internal */
  constructor(api: AgentApi) {
    this.#api = api;
  }

  readFile(path: string, options: 'utf8' | (ReadOptions & { readonly encoding: 'utf8' })): Promise<string>;
  readFile(path: string, options?: ReadOptions & { readonly encoding?: null | undefined }): Promise<Buffer>;
  async readFile(
    path: string,
    options: 'utf8' | (ReadOptions & { readonly encoding?: 'utf8' | null | undefined }) = {},
  ): Promise<string | Buffer> {
    const { encoding, signal } = typeof options === 'string' ? { encoding: options } : options;
    const pieces: Buffer[] = [];
    for await (const piece of this.createReadStream(path, { signal })) pieces.push(piece as Buffer);
    const content = Buffer.concat(pieces);
    return encoding === 'utf8' ? content.toString() : content;
  }

  async writeFile(path: string, content: FileContent, options: WriteOptions = {}): Promise<void> {
    const isHere = typeof content === 'string' || content instanceof Uint8Array;
    const source = isHere ? Readable.from([Buffer.from(content)]) : content;
    const { signal } = options;
    await pipeline(source, this.createWriteStream(path, options), signal ? { signal } : {});
  }

  async appendFile(path: string, content: FileContent, options: Omit<WriteOptions, 'flag'> = {}): Promise<void> {
    await this.writeFile(path, content, { ...options, flag: 'a' });
  }

  /** The content, or a part of it, as a stream. A reader that is slow costs a bounded number of bytes. */
  createReadStream(path: string, options: ReadStreamOptions = {}): Readable {
    const { start, end, signal } = options;
    refuse([...pathProblems({ path }), ...positionProblems({ start, end })]);
    const content = readContent(this.#api, path, start, end);
    return Readable.from(content, { objectMode: false, ...(signal && { signal }) });
  }

  /** A stream whose bytes become the content. It has finished when the guest has written all of them. */
  createWriteStream(path: string, options: WriteStreamOptions = {}): Writable {
    const { start, mode, flag, signal } = options;
    refuse([...pathProblems({ path }), ...positionProblems({ start }), ...modeProblems({ mode })]);
    const request = `/v1/file?${query({ path, start, mode, flag })}`;
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
    refuse([...pathProblems({ hostPath, guestPath }), ...copyOptionProblems('copyIn', options)]);
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
    refuse([...pathProblems({ guestPath, hostPath }), ...copyOptionProblems('copyOut', options)]);
    return copyOut(this.#api, guestPath, hostPath, options);
  }

  /**
   * Tells what changes at a path, as `node:fs/promises` does, by the guest's inotify. It watches from `ready` on.
   *
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS` at once; what comes later rejects the iteration
   */
  watch(path: string, options: WatchOptions = {}): GuestWatcher {
    refuse([...pathProblems({ path }), ...copyOptionProblems('watch', options)]);
    return watch(this.#api, path, options);
  }

  /** The first folder that was made, with `recursive`. */
  async mkdir(
    path: string,
    { recursive = false, mode = 0o777 }: { readonly recursive?: boolean; readonly mode?: number } = {},
  ): Promise<string | undefined> {
    refuse(modeProblems({ mode }));
    const { path: first } = await this.#operate('mkdir', { path, recursive, mode });
    return recursive && typeof first === 'string' ? first : undefined;
  }

  readdir(path: string, options?: { readonly withFileTypes?: false; readonly recursive?: boolean }): Promise<string[]>;
  readdir(
    path: string,
    options: { readonly withFileTypes: true; readonly recursive?: boolean },
  ): Promise<GuestDirent[]>;
  async readdir(
    path: string,
    {
      withFileTypes = false,
      recursive = false,
    }: { readonly withFileTypes?: boolean; readonly recursive?: boolean } = {},
  ): Promise<string[] | GuestDirent[]> {
    const { entries } = await this.#operate('readdir', { path, recursive }, 'scandir');
    const list = entriesOf(entries);
    if (!withFileTypes) return list.map(({ name }) => name);
    return list.map(({ name, kind }) => {
      const whole = posix.join(path, name);
      return new GuestDirent(posix.basename(whole), posix.dirname(whole), kind);
    });
  }

  async stat(path: string): Promise<GuestStats> {
    return new GuestStats((await this.#operate('stat', { path }))['status']);
  }

  /** The same of a symbolic link itself. */
  async lstat(path: string): Promise<GuestStats> {
    return new GuestStats((await this.#operate('lstat', { path }))['status']);
  }

  async rename(path: string, to: string): Promise<void> {
    await this.#operate('rename', { path, to }, 'rename', to);
  }

  async rm(
    path: string,
    { recursive = false, force = false }: { readonly recursive?: boolean; readonly force?: boolean } = {},
  ): Promise<void> {
    await this.#operate('rm', { path, recursive, force });
  }

  async chmod(path: string, mode: number): Promise<void> {
    refuse(modeProblems({ mode }));
    await this.#operate('chmod', { path, mode });
  }

  async chown(path: string, uid: number, gid: number): Promise<void> {
    const isId = (value: number): boolean => isWhole(value, 0, 2 ** 32 - 1);
    refuse(wrong({ uid, gid }, isId, 'a whole number, 0 to 4294967295'));
    await this.#operate('chown', { path, uid, gid });
  }

  async symlink(target: string, path: string): Promise<void> {
    await this.#operate('symlink', { path, target });
  }

  async readlink(path: string): Promise<string> {
    const { path: target } = await this.#operate('readlink', { path });
    if (typeof target !== 'string') throw new MicroVMError('ERR_AGENT_PROTOCOL', 'The agent did not send a path');
    return target;
  }

  /** Numbers are seconds since 1970, as with `node:fs`. */
  async utimes(path: string, accessed: Date | number, modified: Date | number): Promise<void> {
    const seconds = (time: Date | number): number => (time instanceof Date ? time.getTime() / 1000 : time);
    const times = { accessed: seconds(accessed), modified: seconds(modified) };
    refuse(wrong(times, Number.isFinite, 'a Date, or seconds since 1970'));
    await this.#operate('utimes', { path, accessed: time(times.accessed), modified: time(times.modified) }, 'utime');
  }

  async #operate(
    operation: string,
    fields: { readonly path: string; readonly to?: string; readonly target?: string; readonly [name: string]: unknown },
    syscall: string = operation,
    dest?: string,
  ): Promise<Readonly<Record<string, unknown>>> {
    const { path, to, target } = fields;
    refuse(pathProblems({ path, ...(to !== undefined && { to }), ...(target !== undefined && { target }) }));
    try {
      const stream = await this.#api.open('POST', '/v1/files');
      stream.end(JSON.stringify({ operation, ...fields }));
      await this.#api.answerTo(stream);
      const text = await readText(stream, MAX_ANSWER_BYTES).catch((error: unknown) => {
        throw this.#api.explain(error, stream);
      });
      const outcome = parsed(text);
      return outcome === 'done' ? {} : record(outcome);
    } catch (error) {
      throw fileError(error, syscall, path, dest);
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

/** As the kernel has it: nanoseconds count forward, before 1970 too. */
function time(seconds: number): { readonly seconds: number; readonly nanoseconds: number } {
  const whole = Math.floor(seconds);
  // The thousandth of a millisecond is where a number of seconds ends to be exact.
  return { seconds: whole, nanoseconds: Math.min(Math.round((seconds - whole) * 1e6) * 1000, 999_999_000) };
}

function refuse(problems: readonly OptionProblem[]): void {
  if (problems.length > 0) throw invalidOptions(problems);
}

function wrong<T>(
  values: Readonly<Record<string, T>>,
  isRight: (value: T) => boolean,
  allowed: string,
): OptionProblem[] {
  return Object.entries(values)
    .filter(([, value]) => !isRight(value))
    .map(([path, value]) => ({ code: codeOf(value), path, value: JSON.stringify(value) ?? String(value), allowed }));
}

function pathProblems(paths: Readonly<Record<string, unknown>>): OptionProblem[] {
  return wrong(paths, isPath, PATH_RULE);
}

function positionProblems(positions: Readonly<Record<string, number | undefined>>): OptionProblem[] {
  return wrong(
    positions,
    (at) => at === undefined || (Number.isSafeInteger(at) && at >= 0),
    'a whole number, 0 or more',
  );
}

function modeProblems(modes: { readonly mode: number | undefined }): OptionProblem[] {
  const isMode = (mode: number | undefined): boolean => mode === undefined || isWhole(mode, 0, 0o7777);
  return wrong(modes, isMode, 'permissions, 0 to 0o7777');
}
