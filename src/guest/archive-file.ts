// A file that is written from front to back in large pieces and may not grow over a limit.

import { type FileHandle, open } from 'node:fs/promises';

const BUFFER_BYTES = 2 ** 18;

export class ArchiveFile {
  readonly #file: FileHandle;
  readonly #maxBytes: number;
  readonly #tooLarge: () => Error;
  readonly #buffer = Buffer.allocUnsafe(BUFFER_BYTES);
  #buffered = 0;
  #bytes = 0;

  /** Makes the file; it must not exist. A write over `maxBytes` rejects with what `tooLarge` gives. */
  static async create(path: string, maxBytes: number, tooLarge: () => Error): Promise<ArchiveFile> {
    return new ArchiveFile(await open(path, 'wx', 0o600), maxBytes, tooLarge);
  }

  private constructor(file: FileHandle, maxBytes: number, tooLarge: () => Error) {
    this.#file = file;
    this.#maxBytes = maxBytes;
    this.#tooLarge = tooLarge;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#bytes += bytes.length;
    if (this.#bytes > this.#maxBytes) throw this.#tooLarge();
    if (this.#buffered + bytes.length > BUFFER_BYTES) await this.#flush();
    if (bytes.length > BUFFER_BYTES) return this.#writeAll(bytes);
    this.#buffer.set(bytes, this.#buffered);
    this.#buffered += bytes.length;
  }

  /** Writes what is left and closes the file. */
  async finish(): Promise<void> {
    await this.#flush();
    await this.#file.close();
  }

  /** Closes the file as it is. */
  async abandon(): Promise<void> {
    await this.#file.close().catch(() => {});
  }

  async #flush(): Promise<void> {
    await this.#writeAll(this.#buffer.subarray(0, this.#buffered));
    this.#buffered = 0;
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    for (let offset = 0; offset < bytes.length;) {
      const { bytesWritten } = await this.#file.write(bytes, offset);
      offset += bytesWritten;
    }
  }
}
