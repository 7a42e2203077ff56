// Kernels: Debian's own, downloaded by apt and unpacked into the cache; nothing is installed.

import { cpSync, mkdirSync, readFileSync, readdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { realBackport, unpackBackports } from './backports.mjs';
import { busyboxPath } from './busybox.mjs';
import { capture } from './commands.mjs';
import { candidateVersion, realPackage, unpackPackage } from './debian-packages.mjs';
import { CACHE, createFolder, exists, pointTo } from './folders.mjs';
import { SetUpError, done, nothingToDo, say } from './report.mjs';

/**
 * @typedef {object} KernelRecipe
 * @property {string} meta the meta package
 * @property {string} folder where the kernel goes; `current` in it points at the one in use
 * @property {string} mustHave a module without which the kernel is of no use
 * @property {boolean} [newer] from the backports, where Debian's own is too old
 */

/** The kernel of the guests. @type {KernelRecipe} */
export const GUEST_KERNEL = {
  meta: 'linux-image-cloud-amd64',
  folder: join(CACHE, 'guest'),
  mustHave: 'vmw_vsock_virtio_transport.ko',
};

/** The kernel of the lab: it has 9p and kvm-amd. @type {KernelRecipe} */
export const LAB_KERNEL = {
  meta: 'linux-image-amd64',
  folder: join(CACHE, 'lab'),
  mustHave: 'kvm-amd.ko',
};

/** A guest's that uses several request queues of a file system (Linux 6.11). @type {KernelRecipe} */
export const BENCH_KERNEL = { ...GUEST_KERNEL, folder: join(CACHE, 'bench'), newer: true };

/** The release of a kernel folder, such as 6.1.0-56-cloud-amd64. @param {string} folder */
export function releaseOf(folder) {
  return readdirSync(join(folder, 'modules'))[0];
}

/**
 * @param {string} folder
 * @param {string} mustHave
 */
function isComplete(folder, mustHave) {
  if (!exists(join(folder, 'vmlinuz')) || !exists(join(folder, 'modules'))) return false;
  const dependencies = join(folder, 'modules', releaseOf(folder) ?? '', 'modules.dep');
  return exists(dependencies) && readFileSync(dependencies, 'utf8').includes(`/${mustHave}`);
}

/**
 * Makes `<folder>/debian-<version>/{vmlinuz,config,copyright,modules/<release>}` and points `current` at it.
 * A kernel that is there is kept: no network is asked.
 * @param {KernelRecipe} recipe
 * @param {{update?: boolean}} [options] `update` looks for a newer one
 */
export async function fetchKernel({ meta, folder, mustHave, newer = false }, { update = false } = {}) {
  const current = join(folder, 'current');
  if (!update && exists(current) && isComplete(current, mustHave)) return nothingToDo(releaseOf(current));

  const pattern = /^linux-image-\d/;
  const found = newer ? await realBackport(meta, pattern) : await installedSources(meta, pattern);
  const { name } = found;
  const version = `debian-${found.version}`;
  const target = join(folder, version);
  if (!exists(target) || !isComplete(target, mustHave)) {
    say(`Downloads ${name} (from ${meta}) and unpacks it into ${target}`);
    const unpack = newer ? (tree) => unpackBackports([name], tree) : (tree) => unpackPackage(name, tree);
    await createFolder(target, (temporary) => unpackKernel(name, temporary, mustHave, unpack));
  }
  pointTo(current, version);
  return done(`${releaseOf(target)} in ${target}`);
}

/**
 * @param {string} meta
 * @param {RegExp} pattern
 */
async function installedSources(meta, pattern) {
  const name = await realPackage(meta, pattern);
  return { name, version: candidateVersion(name) };
}

/**
 * @param {string} name
 * @param {string} folder
 * @param {string} mustHave
 * @param {(tree: string) => Promise<void>} unpack
 */
async function unpackKernel(name, folder, mustHave, unpack) {
  const tree = join(folder, 'package');
  await unpack(tree);
  const release = name.replace(/^linux-image-/, '');
  // Since Debian 13 everything is below usr.
  const base = exists(join(tree, 'lib/modules')) ? tree : join(tree, 'usr');
  const modules = join(base, 'lib/modules', release);

  // Packages leave modules.dep to their post-installation script.
  const depmod = capture(await busyboxPath(), ['depmod', '-b', base, release]);
  renameSync(join(tree, 'boot', `vmlinuz-${release}`), join(folder, 'vmlinuz'));
  renameSync(join(tree, 'boot', `config-${release}`), join(folder, 'config'));
  cpSync(join(tree, 'usr/share/doc', name, 'copyright'), join(folder, 'copyright'));
  mkdirSync(join(folder, 'modules'));
  renameSync(modules, join(folder, 'modules', release));
  capture('rm', ['-rf', tree]);

  if (isComplete(folder, mustHave)) return;
  throw new SetUpError(`${name} was unpacked, but its modules.dep does not list ${mustHave}`, {
    hint: `depmod said: ${depmod.stderr.trim() || 'nothing'} (status ${depmod.status})`,
  });
}
