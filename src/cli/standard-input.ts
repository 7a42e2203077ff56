// Standard input as one piece: the command channel has no stream for it.

import type { Readable } from 'node:stream';

import { UsageError } from './arguments.ts';

/** Most that `-i` passes on, in bytes: it travels inside the command, as base64, under its 16 MiB cap. */
export const INPUT_MAX: number = 8 * 1024 * 1024;

/** All of `stream`, or an error when it is more than `INPUT_MAX`. */
export async function readAll(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > INPUT_MAX) {
      throw new UsageError(`Standard input is longer than ${INPUT_MAX / 1024 / 1024} MiB`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
