// What a tree of files costs to copy into the guest: `vm.fs.copyIn` against `tar c` here, whose output goes through a plain
// vsock stream to `tar x` in the guest.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import type { MicroVM } from '../../index.ts';
import { type Figure, GUEST_PROGRAM, medians, type Pair } from './report.ts';

const FOLDERS = 100;
const FILES = 100;
const PORT = 5001;

/** Measures pairs of both; `home` is a folder for the tree. */
export async function copies(vm: MicroVM, rounds: number, home: string): Promise<Figure> {
  const tree = join(home, 'tree');
  await makeTree(tree);
  const listener = await vm.vsock.listen(PORT);
  const byTar = async (): Promise<void> => {
    const unpacking = vm.exec(GUEST_PROGRAM, ['stdin', `${PORT}`, 'tar', 'x', '-C', '/tmp/by-tar']);
    const [stream] = (await once(listener, 'connection')) as [Duplex];
    const tar = spawn('tar', ['c', '-C', tree, '.'], { stdio: ['ignore', 'pipe', 'inherit'] });
    await Promise.all([pipeline(tar.stdout, stream), unpacking]);
  };
  const times: Pair[] = [];
  try {
    for (let round = 0; round < rounds; round += 1) {
      await vm.exec('rm -rf /tmp/by-tar /tmp/by-copy; mkdir /tmp/by-tar', { shell: true });
      const reference = await milliseconds(byTar);
      times.push({ reference, ours: await milliseconds(() => vm.fs.copyIn(tree, '/tmp/by-copy')) });
    }
    const count = async (folder: string): Promise<string> =>
      (await vm.exec(`find /tmp/${folder} -type f | wc -l`, { shell: true })).stdout.trim();
    const counts = [await count('by-tar'), await count('by-copy')];
    if (counts.some((files) => Number(files) !== FOLDERS * FILES)) throw new Error(`${counts} files arrived`);
    await vm.exec('rm', ['-rf', '/tmp/by-tar', '/tmp/by-copy']);
  } finally {
    await listener.close();
  }
  return {
    title: `\`copyIn\` of ${FOLDERS * FILES} files`,
    referenceTitle: '`tar c` through a plain vsock stream to `tar x`',
    unit: 'ms',
    // The ratio is one of speeds, as the target is.
    ...medians(times, ({ ours, reference }) => reference / ours),
    target: { atLeast: 0.8 },
  };
}

/** Files of 5 KiB on average. */
async function makeTree(tree: string): Promise<void> {
  for (let folder = 0; folder < FOLDERS; folder += 1) {
    await mkdir(join(tree, `${folder}`), { recursive: true });
    for (let file = 0; file < FILES; file += 1) {
      await writeFile(join(tree, `${folder}`, `${file}`), Buffer.alloc(1000 + ((file * 977) % 7000), 'x'));
    }
  }
}

async function milliseconds(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}
