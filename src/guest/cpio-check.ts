// Reads a user's cpio archive once, from front to back, while it is copied: the kernel says little about an archive that is broken.

import { MicroVMError } from '../errors.ts';
import { align, HEADER_BYTES, MAX_NAME_BYTES, type Sink, TRAILER } from './cpio.ts';

/** Copies archives (several may follow each other, as for the kernel) to `sink`; rejects with `ERR_ROOTFS_INVALID`. */
export async function copyCpio(source: AsyncIterable<Buffer>, sink: Sink, path: string): Promise<void> {
  const copier = new CpioCopier(source, sink, path);
  await copier.copyAll();
}

class CpioCopier {
  readonly #source: AsyncIterator<Buffer>;
  readonly #sink: Sink;
  readonly #path: string;
  #piece: Buffer = Buffer.alloc(0);
  #position = 0;

  constructor(source: AsyncIterable<Buffer>, sink: Sink, path: string) {
    this.#source = source[Symbol.asyncIterator]();
    this.#sink = sink;
    this.#path = path;
  }

  async copyAll(): Promise<void> {
    let archives = 0;
    while (await this.#skipZeros()) {
      await this.#copyArchive();
      archives += 1;
    }
    if (archives === 0) throw this.#broken('it is empty');
  }

  async #copyArchive(): Promise<void> {
    for (;;) {
      const name = await this.#copyEntry();
      if (name === TRAILER) return;
    }
  }

  /** Copies one entry; gives its name. */
  async #copyEntry(): Promise<string> {
    const start = this.#position;
    const header = await this.#take(HEADER_BYTES, 'inside a header');
    const text = header.toString('latin1');
    if (!/^07070[12][\da-f]{104}$/i.test(text)) throw this.#broken(`there is no newc header at byte ${start}`);
    const field = (index: number): number => Number.parseInt(text.slice(6 + index * 8, 14 + index * 8), 16);
    const nameBytes = field(11);
    if (nameBytes < 2 || nameBytes > MAX_NAME_BYTES + 1) {
      throw this.#broken(`the name of the entry at byte ${start} has ${nameBytes} bytes`);
    }
    const rest = await this.#take(align(HEADER_BYTES + nameBytes) - HEADER_BYTES, 'inside a name');
    if (rest.indexOf(0) !== nameBytes - 1) throw this.#broken(`the name of the entry at byte ${start} has no end`);
    const name = rest.toString('utf8', 0, nameBytes - 1);
    // Kernels before 5.19 do not know the form with checksums, which differs in this alone.
    header.write('070701', 'latin1');
    await this.#sink(header);
    await this.#sink(rest);
    await this.#copy(align(field(6)), name);
    return name;
  }

  async #copy(bytes: number, name: string): Promise<void> {
    for (let left = bytes; left > 0;) {
      if (!(await this.#fill())) throw this.#broken(`it ends inside ${name}`);
      const part = this.#piece.subarray(0, left);
      this.#consume(part.length);
      left -= part.length;
      await this.#sink(part);
    }
  }

  async #take(bytes: number, where: string): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let left = bytes; left > 0;) {
      if (!(await this.#fill())) throw this.#broken(`it ends ${where} at byte ${this.#position}`);
      const part = this.#piece.subarray(0, left);
      this.#consume(part.length);
      left -= part.length;
      parts.push(part);
    }
    return Buffer.concat(parts);
  }

  /** Archives are padded with zeros, to 512 bytes or more, and the next may follow. Gives false at the end. */
  async #skipZeros(): Promise<boolean> {
    while (await this.#fill()) {
      const end = this.#piece.findIndex((byte) => byte !== 0);
      if (end !== -1) {
        this.#consume(end);
        return true;
      }
      this.#consume(this.#piece.length);
    }
    return false;
  }

  /** Makes sure that there is a piece to look at; false at the end of the source. */
  async #fill(): Promise<boolean> {
    while (this.#piece.length === 0) {
      const { done, value } = await this.#source.next();
      if (done) return false;
      this.#piece = value;
    }
    return true;
  }

  #consume(bytes: number): void {
    this.#piece = this.#piece.subarray(bytes);
    this.#position += bytes;
  }

  #broken(why: string): MicroVMError {
    return new MicroVMError('ERR_ROOTFS_INVALID', `${this.#path} is not a whole cpio archive: ${why}`, {
      hint: 'Make it with `find . | cpio --create --format=newc`, gzip optional.',
    });
  }
}
