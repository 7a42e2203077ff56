// Both outputs of a process in one body, as Docker has it: a byte (1 stdout, 2 stderr), three zero bytes, a u32 length
// (big-endian), that many bytes. The guest is not trusted: contents are handed on as they arrive, never gathered.

import { MicroVMError } from '../errors.ts';

/** 1 for standard output, 2 for standard error. */
export type OutputKind = 1 | 2;

const HEADER_BYTES = 8;
/** Our agent sends no more than 64 KiB at once; whoever announces much more speaks another language. */
const MAX_FRAME_BYTES = 16 * 1024 * 1024;

/** Takes the body apart, in whatever pieces it comes. One parser per body. */
export class OutputFrameParser {
  readonly #onPiece: (kind: OutputKind, piece: Buffer) => void;
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerBytes = 0;
  #kind: OutputKind = 1;
  #missing = 0;

  /** `onPiece` gets what a piece holds of each output, in order: views of what was pushed, not copies. */
  constructor(onPiece: (kind: OutputKind, piece: Buffer) => void) {
    this.#onPiece = onPiece;
  }

  /** Whether the body may end here: between two frames. */
  get isBetweenFrames(): boolean {
    return this.#headerBytes === 0 && this.#missing === 0;
  }

  /** Takes the next piece. Throws `ERR_AGENT_PROTOCOL` on what the framing does not allow. */
  push(piece: Buffer): void {
    let rest = piece;
    while (rest.length > 0) {
      if (this.#missing === 0) {
        rest = this.#takeHeader(rest);
        continue;
      }
      const content = rest.subarray(0, this.#missing);
      rest = rest.subarray(content.length);
      this.#missing -= content.length;
      this.#onPiece(this.#kind, content);
    }
  }

  #takeHeader(piece: Buffer): Buffer {
    const taken = piece.copy(this.#header, this.#headerBytes);
    this.#headerBytes += taken;
    if (this.#headerBytes === HEADER_BYTES) {
      this.#headerBytes = 0;
      const head = this.#header.readUInt32BE(0);
      const kind = head >>> 24;
      if ((kind !== 1 && kind !== 2) || (head & 0xff_ffff) !== 0) {
        throw new MicroVMError('ERR_AGENT_PROTOCOL', `The agent sent a frame of no known kind (${head.toString(16)})`);
      }
      this.#kind = kind;
      this.#missing = this.#header.readUInt32BE(4);
      if (this.#missing > MAX_FRAME_BYTES) {
        throw new MicroVMError(
          'ERR_AGENT_PROTOCOL',
          `The agent announced a frame of ${this.#missing} bytes; the limit is ${MAX_FRAME_BYTES}`,
        );
      }
    }
    return piece.subarray(taken);
  }
}
