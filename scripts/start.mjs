// npm start: the set-up, then a first microVM.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fail, setUp } from './set-up.mjs';
import { PROJECT } from './set-up/folders.mjs';

try {
  await setUp();
  console.log();
  const { status } = spawnSync(join(PROJECT, 'node_modules/.bin/node'), ['examples/first-boot.ts'], {
    cwd: PROJECT,
    stdio: 'inherit',
  });
  process.exitCode = status ?? 1;
} catch (error) {
  fail(error);
}
