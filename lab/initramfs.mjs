// The first root of the emulated machine: busybox and the modules that it takes to mount this machine's files.

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { busyboxPath } from '../scripts/set-up/busybox.mjs';
import { run } from '../scripts/set-up/commands.mjs';
import { exists } from '../scripts/set-up/folders.mjs';
import { releaseOf } from '../scripts/set-up/guest-kernel.mjs';
import { SetUpError } from '../scripts/set-up/report.mjs';

/** What the kernel must learn before it has a root; their dependencies come along. */
const WANTED = ['virtio_pci', '9pnet_virtio', '9p', 'overlay', 'virtio_console'];
const INIT = new URL('init.sh', import.meta.url);

/**
 * The wanted modules with all that they depend on, each after its dependencies.
 * @param {string} modules the folder with modules.dep
 */
function inLoadOrder(modules) {
  const dependencies = new Map(
    readFileSync(join(modules, 'modules.dep'), 'utf8')
      .split('\n')
      .filter((line) => line.includes(':'))
      .map((line) => [line.split(':')[0], line.split(':')[1].split(' ').filter(Boolean)]),
  );
  const builtIn = readFileSync(join(modules, 'modules.builtin'), 'utf8');
  const order = new Set();
  const add = (path) => {
    for (const dependency of dependencies.get(path) ?? []) add(dependency);
    order.add(path);
  };
  for (const name of WANTED) {
    const path = [...dependencies.keys()].find((entry) => moduleFile(entry) === `${name}.ko`);
    if (path !== undefined) add(path);
    else if (!builtIn.includes(`/${name}.ko\n`)) throw new SetUpError(`The lab's kernel has no module ${name}`);
  }
  return [...order];
}

/** The name of a module's file without its compression. @param {string} path */
function moduleFile(path) {
  return basename(path, '.xz');
}

/** Debian packs the modules of newer kernels by xz. @param {string} path */
async function moduleContent(path) {
  if (!path.endsWith('.xz')) return readFileSync(path);
  const { status, stdout, error } = spawnSync(await busyboxPath(), ['xzcat', path], { maxBuffer: 256 << 20 });
  if (status !== 0) throw new SetUpError(`${path} cannot be unpacked`, { cause: error });
  return stdout;
}

/**
 * Gives the path of the initramfs for a kernel, which is built when it is not in the folder yet.
 * @param {string} kernel a folder with vmlinuz and modules/
 * @param {string} folder
 */
export async function makeInitramfs(kernel, folder) {
  const release = releaseOf(kernel);
  const recipe = createHash('sha256')
    .update(realpathSync(kernel))
    .update(readFileSync(INIT))
    .update(readFileSync(new URL(import.meta.url)));
  const file = join(folder, `${release}-${recipe.digest('hex').slice(0, 12)}.cpio.gz`);
  if (exists(file)) return file;

  const root = join(folder, `.root.${process.pid}`);
  const archive = `${root}.cpio.gz`;
  try {
    for (const name of ['bin', 'modules', 'proc', 'sys', 'dev', 'lower', 'upper', 'newroot']) {
      mkdirSync(join(root, name), { recursive: true });
    }
    copyFileSync(await busyboxPath(), join(root, 'bin/busybox'));
    writeFileSync(join(root, 'init'), readFileSync(INIT), { mode: 0o755 });
    const modules = join(kernel, 'modules', release);
    for (const [index, path] of inLoadOrder(modules).entries()) {
      const content = await moduleContent(join(modules, path));
      writeFileSync(join(root, 'modules', `${String(index).padStart(2, '0')}-${moduleFile(path)}`), content);
    }
    await run(
      'sh',
      [
        '-c',
        'cd "$1" && find . | "$2" cpio -o -H newc 2>/dev/null | gzip -1 >"$3"',
        'sh',
        root,
        await busyboxPath(),
        archive,
      ],
      {
        what: "Packing the lab's initramfs",
      },
    );
    renameSync(archive, file);
  } finally {
    rmSync(root, { recursive: true, force: true });
    rmSync(archive, { force: true });
  }
  for (const other of readdirSync(dirname(file))) {
    if (other !== basename(file) && other.startsWith(`${release}-`)) rmSync(join(folder, other), { force: true });
  }
  return file;
}
