// What the guest says of a file, in the form of `node:fs`.

import { MicroVMError } from '../errors.ts';

const S_IFMT = 0o170_000;
const KINDS = {
  fifo: 0o010_000,
  character: 0o020_000,
  folder: 0o040_000,
  block: 0o060_000,
  file: 0o100_000,
  link: 0o120_000,
  socket: 0o140_000,
} as const;

/** What kind of file it is. */
export class GuestFileKind {
  readonly #kind: number;

  /** @internal */
  constructor(mode: number) {
    this.#kind = mode & S_IFMT;
  }

  isFile(): boolean {
    return this.#kind === KINDS.file;
  }

  isDirectory(): boolean {
    return this.#kind === KINDS.folder;
  }

  isSymbolicLink(): boolean {
    return this.#kind === KINDS.link;
  }

  isFIFO(): boolean {
    return this.#kind === KINDS.fifo;
  }

  isSocket(): boolean {
    return this.#kind === KINDS.socket;
  }

  isBlockDevice(): boolean {
    return this.#kind === KINDS.block;
  }

  isCharacterDevice(): boolean {
    return this.#kind === KINDS.character;
  }
}

/** An entry of a folder. */
export class GuestDirent extends GuestFileKind {
  readonly name: string;
  /** The folder that it is in. */
  readonly parentPath: string;

  /** @internal */
  constructor(name: string, parentPath: string, kind: number) {
    super(kind);
    this.name = name;
    this.parentPath = parentPath;
  }
}

/** A file's status. Times are of the guest's clock. */
export class GuestStats extends GuestFileKind {
  readonly dev: number;
  readonly ino: number;
  /** Type and permissions. */
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: number;
  /** In bytes. */
  readonly size: number;
  readonly blksize: number;
  /** In units of 512 bytes. */
  readonly blocks: number;
  readonly atimeMs: number;
  readonly mtimeMs: number;
  readonly ctimeMs: number;

  /** @internal */
  constructor(told: unknown) {
    const fields = record(told);
    super(number(fields, 'mode'));
    this.dev = number(fields, 'dev');
    this.ino = number(fields, 'ino');
    this.mode = number(fields, 'mode');
    this.nlink = number(fields, 'nlink');
    this.uid = number(fields, 'uid');
    this.gid = number(fields, 'gid');
    this.rdev = number(fields, 'rdev');
    this.size = number(fields, 'size');
    this.blksize = number(fields, 'blksize');
    this.blocks = number(fields, 'blocks');
    this.atimeMs = milliseconds(fields['accessed']);
    this.mtimeMs = milliseconds(fields['modified']);
    this.ctimeMs = milliseconds(fields['changed']);
  }

  get atime(): Date {
    return new Date(this.atimeMs);
  }

  get mtime(): Date {
    return new Date(this.mtimeMs);
  }

  get ctime(): Date {
    return new Date(this.ctimeMs);
  }
}

/** The entries of a folder as the agent tells them; names that would lead out of it are refused. */
export function entriesOf(told: unknown): readonly { readonly name: string; readonly kind: number }[] {
  if (!Array.isArray(told)) throw notAsAgreed('a list of entries');
  return told.map((entry: unknown) => {
    const fields = record(entry);
    const { name } = fields;
    const isPlain =
      typeof name === 'string' &&
      !name.includes('\0') &&
      name.split('/').every((part) => part !== '' && part !== '.' && part !== '..');
    if (!isPlain) throw notAsAgreed('names of entries');
    return { name, kind: number(fields, 'kind') };
  });
}

/** An object that came from the guest. */
export function record(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null) return value as Readonly<Record<string, unknown>>;
  throw notAsAgreed('an object');
}

function milliseconds(time: unknown): number {
  const fields = record(time);
  return number(fields, 'seconds') * 1000 + number(fields, 'nanoseconds') / 1e6;
}

function number(fields: Readonly<Record<string, unknown>>, name: string): number {
  const value = fields[name];
  if (typeof value === 'number') return value;
  throw notAsAgreed(`a number as ${name}`);
}

function notAsAgreed(wanted: string): MicroVMError {
  return new MicroVMError('ERR_AGENT_PROTOCOL', `The agent did not send ${wanted} where it should`);
}
