// npm's packages, installed as the lock file says.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './commands.mjs';
import { PROJECT, exists, stamp } from './folders.mjs';
import { done, nothingToDo, say } from './report.mjs';

/** Runs `npm ci` unless node_modules was made from this very lock file. */
export async function installNodeModules() {
  const lock = createHash('sha256')
    .update(readFileSync(join(PROJECT, 'package-lock.json')))
    .digest('hex');
  const made = stamp(join(PROJECT, 'node_modules/.microvm-lock-hash'));
  if (made.matches(lock) && exists(join(PROJECT, 'node_modules/.bin/tsc'))) return nothingToDo('as locked');

  say('Installs the npm packages of package-lock.json into node_modules/');
  await run('npm', ['ci', '--no-audit', '--no-fund'], {
    what: 'Installing npm packages',
    cwd: PROJECT,
    hint: 'If the lock file and package.json disagree, run npm install.',
  });
  made.write(lock);
  return done();
}
