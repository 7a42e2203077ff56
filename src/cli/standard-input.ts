// Standard input as one piece: the command channel has no stream for it.

import { addAbortSignal, type Readable } from 'node:stream';

import { UsageError } from './arguments.ts';

/** Most that `-i` passes on, in bytes: it travels inside the command, as base64, under its 16 MiB cap. */
export const INPUT_MAX: number = 8 * 1024 * 1024;

/** All of `stream`, or an error when it is more than `INPUT_MAX` or `signal` aborts. */
export async function readAll(stream: Readable, signal: AbortSignal): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of addAbortSignal(signal, stream) as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > INPUT_MAX) {
      throw new UsageError(`Standard input is longer than ${INPUT_MAX / 1024 / 1024} MiB`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
