// The folders that the set-up fills.

import { createHash, randomBytes } from 'node:crypto';
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The checkout. */
export const PROJECT = fileURLToPath(new URL('../../', import.meta.url)).replace(/\/$/, '');

/** The cache that `MicroVM.create` reads: the same rule as src/cache/. */
export const CACHE =
  process.env.MICROVM_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'microvm');

/**
 * Fills a folder beside its final place and renames it: it is there completely or not at all.
 * @param {string} folder
 * @param {(temporary: string) => void | Promise<void>} fill
 */
export async function createFolder(folder, fill) {
  const temporary = join(dirname(folder), temporaryName());
  mkdirSync(temporary, { recursive: true });
  try {
    await fill(temporary);
    rmSync(folder, { recursive: true, force: true });
    renameSync(temporary, folder);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

/** As in src/cache/: the name tells `microvm cache clean` whose it is. */
function temporaryName() {
  const stat = readFileSync('/proc/self/stat', 'latin1');
  const startTime = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  return `.tmp-${process.pid}-${startTime}-${randomBytes(6).toString('hex')}`;
}

/**
 * Points a symbolic link at a sibling, replacing the link in one step.
 * @param {string} link
 * @param {string} target the name of the sibling
 */
export function pointTo(link, target) {
  const temporary = `${link}.${process.pid}`;
  rmSync(temporary, { force: true });
  symlinkSync(target, temporary);
  renameSync(temporary, link);
}

/** @param {string} path */
export function exists(path) {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

/**
 * A fingerprint of files by name, size and modification time: good for "has anything been edited here".
 * @param {string[]} paths files and folders under the checkout
 */
export function fingerprint(paths) {
  const hash = createHash('sha256');
  for (const path of paths) walk(join(PROJECT, path), hash);
  return hash.digest('hex');
}

/**
 * @param {string} path
 * @param {import('node:crypto').Hash} hash
 */
function walk(path, hash) {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isDirectory()) {
    hash.update(`${path}\0${stat.size}\0${stat.mtimeMs}\n`);
    return;
  }
  for (const entry of readdirSync(path).sort()) walk(join(path, entry), hash);
}

/**
 * Remembers the fingerprint that an output was made from.
 * @param {string} file
 */
export function stamp(file) {
  return {
    /** @param {string} print */
    matches: (print) => exists(file) && readFileSync(file, 'utf8') === print,
    /** @param {string} print */
    write: (print) => {
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, print);
    },
  };
}
