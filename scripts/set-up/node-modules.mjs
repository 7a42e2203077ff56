// npm's packages, installed as the lock file says.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './commands.mjs';
import { PROJECT, exists } from './folders.mjs';
import { done, nothingToDo, say } from './report.mjs';

/**
 * @param {string} file
 * @returns {Record<string, {version?: string, integrity?: string, optional?: boolean, link?: boolean}>}
 */
function packagesIn(file) {
  return JSON.parse(readFileSync(join(PROJECT, file), 'utf8')).packages;
}

/** Whether node_modules holds what the lock file asks for, by the list that npm keeps in it. */
function isAsLocked() {
  const list = 'node_modules/.package-lock.json';
  if (!exists(join(PROJECT, list))) return false;
  const installed = packagesIn(list);
  // Optional packages are those of other platforms, for the most part.
  return Object.entries(packagesIn('package-lock.json'))
    .filter(([path, { optional, link }]) => path !== '' && !optional && !link)
    .every(([path, { version, integrity }]) => {
      const found = installed[path];
      return found?.version === version && found?.integrity === integrity;
    });
}

/**
 * Installs where node_modules is missing or not what the lock file asks for. Not by `npm ci`: that refuses a lock file
 * without the optional packages of platforms that the registry did not offer when it was written.
 */
export async function installNodeModules() {
  if (isAsLocked()) return nothingToDo('as locked');
  say('Installs the npm packages of package-lock.json into node_modules/');
  await run('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error'], {
    what: 'Installing npm packages',
    cwd: PROJECT,
  });
  return done();
}
