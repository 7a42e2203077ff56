// The npm packages that users get along with ours: the dependencies and theirs, by the lock file.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT } from '../set-up/folders.mjs';

/** Gives their folders, relative to the checkout. @returns {string[]} */
export function shippedPackages() {
  const { packages } = JSON.parse(readFileSync(join(PROJECT, 'package-lock.json'), 'utf8'));
  const found = new Set();

  /**
   * @param {string} name
   * @param {string} from the folder that asks for it
   */
  const add = (name, from) => {
    const path = lookUp(name, from, packages);
    if (path === undefined || found.has(path)) return;
    found.add(path);
    for (const dependency of Object.keys(packages[path].dependencies ?? {})) add(dependency, path);
  };
  for (const name of Object.keys(packages[''].dependencies ?? {})) add(name, '');
  return [...found];
}

/**
 * As Node looks for it: in the asking package's own node_modules, then in those of the folders above.
 * @param {string} name
 * @param {string} from
 * @param {Record<string, unknown>} packages
 */
function lookUp(name, from, packages) {
  for (let folder = from; ; folder = folder.slice(0, Math.max(folder.lastIndexOf('/node_modules/'), 0))) {
    const path = `${folder === '' ? '' : `${folder}/`}node_modules/${name}`;
    if (path in packages) return path;
    if (folder === '') return undefined;
  }
}
