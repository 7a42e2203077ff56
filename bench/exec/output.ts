// How fast a command's output comes: against the same program that writes to a plain vsock stream itself, and against a plain
// program that passes its output on from a pipe, which is the least that whoever keeps both streams apart has to do.

import { once } from 'node:events';
import type { Duplex, Readable } from 'node:stream';

import type { MicroVM } from '../../index.ts';
import { type Figure, GUEST_PROGRAM, medians, type Pair } from './report.ts';

const PORT = 5000;
const BYTES = 16 * 1024 * 1024;

/** What the output is compared with. */
export type OutputReference = 'vsock' | 'pipe';

const REFERENCES: Readonly<Record<OutputReference, string>> = {
  vsock: 'the same program into a plain vsock stream',
  pipe: 'the same, through a pipe and a loop of `read` and `write` into a plain vsock stream',
};

/** Measures pairs of both, for writes of `blockBytes`. */
export async function output(
  vm: MicroVM,
  rounds: number,
  blockBytes: number,
  reference: OutputReference,
): Promise<Figure> {
  const listener = await vm.vsock.listen(PORT);
  const write = (port: number): string[] => ['write', `${BYTES}`, `${blockBytes}`, `${port}`];
  const words = reference === 'vsock' ? write(PORT) : ['stdout', `${PORT}`, GUEST_PROGRAM, ...write(0)];
  const byVsock = async (): Promise<number> => {
    const writing = vm.exec(GUEST_PROGRAM, words);
    const [stream] = (await Promise.race([once(listener, 'connection'), writing.then(endedEarly)])) as [Duplex];
    const speed = await speedOf(stream);
    stream.destroy();
    await writing;
    return speed;
  };
  const byExec = async (): Promise<number> => {
    const writing = vm.exec(GUEST_PROGRAM, write(0), { buffer: false });
    const speed = await speedOf(writing.stdout);
    await writing;
    return speed;
  };
  const pairs: Pair[] = [];
  try {
    for (let round = 0; round < rounds; round += 1) {
      // Each is the first as often as the other.
      const first = round % 2 === 0 ? await byExec() : await byVsock();
      const second = round % 2 === 0 ? await byVsock() : await byExec();
      pairs.push(round % 2 === 0 ? { ours: first, reference: second } : { ours: second, reference: first });
    }
  } finally {
    await listener.close();
  }
  return {
    title: `standard output, in writes of ${blockBytes / 1024} KiB`,
    referenceTitle: REFERENCES[reference],
    unit: 'MiB/s',
    ...medians(pairs, ({ ours, reference }) => ours / reference),
    target: { atLeast: 0.8 },
  };
}

/** MiB/s from the first piece to the last. */
async function speedOf(stream: Readable): Promise<number> {
  let bytes = 0;
  let begun = 0;
  let counted = 0;
  stream.on('data', (piece: Buffer) => {
    bytes += piece.length;
    if (begun === 0) begun = performance.now();
    else counted += piece.length;
  });
  await once(stream, 'end');
  if (bytes !== BYTES) throw new Error(`${bytes} bytes came instead of ${BYTES}`);
  return counted / 2 ** 20 / ((performance.now() - begun) / 1000);
}

function endedEarly(): never {
  throw new Error('The program in the guest ended before it connected');
}
