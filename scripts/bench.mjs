// npm run bench [-- ROUNDS]: the boot benchmark, in the lab where this machine's KVM is not native.
// In the lab instructions are counted, for times of an emulated machine mean nothing: 1 ms is a million instructions.

import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fail, setUp } from './set-up.mjs';
import { PROJECT } from './set-up/folders.mjs';

try {
  await setUp();
  const node = join(PROJECT, 'node_modules/.bin/node');
  const bench = ['bench/boot.ts', ...process.argv.slice(2)];
  const { status, stdout } = spawnSync('lab/run', [node, ...bench], {
    cwd: PROJECT,
    encoding: 'utf8',
    env: { LAB_ICOUNT: '1', LAB_TIMEOUT: '3600', ...process.env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  process.exitCode = status ?? 1;
  if (status === 0) {
    const folder = join(PROJECT, 'bench/results');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'boot.json'), stdout);
    console.log('Written to bench/results/boot.json');
  }
} catch (error) {
  fail(error);
}
