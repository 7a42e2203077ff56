// Writes cpio archives in the "newc" form, the one that the kernel unpacks. All files belong to root.

/** Where an archive's bytes go. */
export type Sink = (bytes: Uint8Array) => Promise<void>;

export const HEADER_BYTES = 110;
export const TRAILER = 'TRAILER!!!';
/** The kernel skips entries with longer names in silence (PATH_MAX, with the NUL). */
export const MAX_NAME_BYTES = 4095;

/** Type bits of a mode (st_mode). */
export const MODE = {
  file: 0o100000,
  folder: 0o040000,
  symlink: 0o120000,
  characterDevice: 0o020000,
  blockDevice: 0o060000,
  fifo: 0o010000,
} as const;

export interface CpioEntry {
  /** Path without a leading slash; bytes, as Linux has it. */
  readonly name: string | Uint8Array;
  /** Type and permission bits. */
  readonly mode: number;
  /** Bytes of content that `write` will be given next. @default 0 */
  readonly size?: number;
  /** Seconds since 1970. @default 0 */
  readonly mtime?: number;
  /** Device number of a device node. */
  readonly device?: { readonly major: number; readonly minor: number };
  /** Names of one file share a number of at least 1; the first carries the content. */
  readonly hardLink?: { readonly id: number; readonly count: number };
}

export class CpioWriter {
  readonly #sink: Sink;
  /** Above those that hard links bring along. */
  #nextId = 0x4000_0000;
  #contentLeft = 0;
  #padding = 0;

  constructor(sink: Sink) {
    this.#sink = sink;
  }

  /** Writes an entry's header and, where there is some, all of its content. */
  async add(entry: CpioEntry, content: Uint8Array = new Uint8Array()): Promise<void> {
    await this.begin({ ...entry, size: content.length });
    if (content.length > 0) await this.write(content);
  }

  /** Writes a header; `entry.size` bytes of content have to follow by `write`. */
  async begin(entry: CpioEntry): Promise<void> {
    if (this.#contentLeft > 0) throw new RangeError(`${this.#contentLeft} bytes of the last file are missing`);
    const { size = 0, mtime = 0, device = { major: 0, minor: 0 }, hardLink } = entry;
    const name = typeof entry.name === 'string' ? Buffer.from(entry.name) : entry.name;
    const id = hardLink?.id ?? this.#nextId++;
    const links = hardLink?.count ?? 1;
    const fields = [id, entry.mode, 0, 0, links, mtime, size, 0, 0, device.major, device.minor, name.length + 1, 0];
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
    const bytes = Buffer.alloc(align(HEADER_BYTES + name.length + 1));
    bytes.write(header, 'latin1');
    bytes.set(name, HEADER_BYTES);
    await this.#sink(bytes);
    this.#contentLeft = size;
    this.#padding = align(size) - size;
  }

  async write(content: Uint8Array): Promise<void> {
    if (content.length > this.#contentLeft) throw new RangeError('More content than the header says');
    this.#contentLeft -= content.length;
    await this.#sink(content);
    if (this.#contentLeft === 0 && this.#padding > 0) await this.#sink(Buffer.alloc(this.#padding));
  }

  /** Ends the archive; its length is then a multiple of 4, so that another can follow. */
  async end(): Promise<void> {
    await this.begin({ name: TRAILER, mode: 0, hardLink: { id: 0, count: 1 } });
  }
}

/** The next multiple of 4: headers and contents begin there. */
export function align(bytes: number): number {
  return Math.ceil(bytes / 4) * 4;
}
