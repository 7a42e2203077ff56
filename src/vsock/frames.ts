// The bytes of the command channel. Host to guest: u32 big-endian length, command. Guest to host: length-prefixed stdout,
// length-prefixed stderr, one byte of exit code. The guest is not trusted: memory is taken as bytes arrive, never as lengths promise.

import { MicroVMError } from '../errors.ts';

export interface Reply {
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  readonly exitCode: number;
}

const HEADER_BYTES = 4;

/** The frame that carries one command. Throws `ERR_COMMAND_TOO_LARGE`. */
export function encodeCommand(command: Uint8Array, maxBytes: number): Buffer {
  if (command.length > maxBytes) {
    throw new MicroVMError(
      'ERR_COMMAND_TOO_LARGE',
      `The command has ${command.length} bytes; the channel takes ${maxBytes}`,
      { hint: 'Put large data into a file and let the command read it.' },
    );
  }
  const frame = Buffer.allocUnsafe(HEADER_BYTES + command.length);
  frame.writeUInt32BE(command.length);
  frame.set(command, HEADER_BYTES);
  return frame;
}

/** Takes a reply apart, in whatever pieces it comes. One parser per reply. */
export class ReplyParser {
  readonly #maxBytes: number;
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerBytes = 0;
  #missing = 0;
  #parts: Buffer[] = [];
  readonly #frames: Buffer[] = [];
  #bytes = 0;
  #isComplete = false;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Bytes taken so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Takes the next piece; gives the reply once it is whole. Throws on what the protocol does not allow. */
  push(piece: Buffer): Reply | undefined {
    this.#bytes += piece.length;
    let rest = piece;
    while (rest.length > 0) {
      const [stdout, stderr] = this.#frames;
      if (this.#isComplete) throw excess(rest.length);
      if (stdout && stderr) {
        this.#isComplete = true;
        if (rest.length > 1) throw excess(rest.length - 1);
        return { stdout, stderr, exitCode: rest.readUInt8(0) };
      }
      rest = this.#headerBytes < HEADER_BYTES ? this.#takeHeader(rest) : this.#takeBody(rest);
    }
    return undefined;
  }

  #takeHeader(piece: Buffer): Buffer {
    const taken = piece.copy(this.#header, this.#headerBytes);
    this.#headerBytes += taken;
    if (this.#headerBytes === HEADER_BYTES) {
      this.#missing = this.#header.readUInt32BE(0);
      if (this.#missing > this.#maxBytes) throw this.#tooLarge();
      if (this.#missing === 0) this.#finishFrame();
    }
    return piece.subarray(taken);
  }

  #takeBody(piece: Buffer): Buffer {
    const part = piece.subarray(0, this.#missing);
    this.#parts.push(part);
    this.#missing -= part.length;
    if (this.#missing === 0) this.#finishFrame();
    return piece.subarray(part.length);
  }

  #finishFrame(): void {
    this.#frames.push(Buffer.concat(this.#parts));
    this.#parts = [];
    this.#headerBytes = 0;
  }

  #tooLarge(): MicroVMError {
    const name = this.#frames.length === 0 ? 'standard output' : 'standard error';
    return new MicroVMError(
      'ERR_CHANNEL_FRAME_TOO_LARGE',
      `The guest announced ${this.#missing} bytes of ${name}; the limit is ${this.#maxBytes}`,
      { hint: 'Let the command write to a file in the guest, or print less.' },
    );
  }
}

function excess(bytes: number): MicroVMError {
  return new MicroVMError('ERR_CHANNEL_PROTOCOL', `The guest sent ${bytes} bytes after the end of its reply`);
}
