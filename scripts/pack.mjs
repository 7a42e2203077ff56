// Packs the two packages as they are published: `node scripts/pack.mjs FOLDER` prints the paths of the archives.

import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { capture } from './set-up/commands.mjs';
import { PROJECT } from './set-up/folders.mjs';
import { SetUpError } from './set-up/report.mjs';

const PLATFORM = 'linux-x64-gnu';
const NATIVE_FILES = [`microvm.${PLATFORM}.node`, 'microvm-agent', 'microvm-virtiofsd', 'vhost-user.json'];

/**
 * @param {string} folder
 * @param {string} destination
 */
function npmPack(folder, destination) {
  const { status, stdout, stderr } = capture(
    'npm',
    ['pack', '--json', '--ignore-scripts', '--pack-destination', destination],
    {
      cwd: folder,
    },
  );
  if (status !== 0) throw new SetUpError(`npm pack failed in ${folder}: ${stderr.trim()}`);
  // npm 12 answers with an object by package name, older ones with a list.
  const [packed] = Object.values(JSON.parse(stdout));
  return {
    name: packed.name,
    file: join(destination, packed.filename),
    size: packed.size,
    unpackedSize: packed.unpackedSize,
  };
}

/** Copies the checkout's manifest with the optional dependency that only a release has. */
function rootForRelease() {
  const manifest = JSON.parse(readFileSync(join(PROJECT, 'package.json'), 'utf8'));
  const {
    scripts: _scripts,
    devDependencies: _devDependencies,
    overrides: _overrides,
    napi: _napi,
    ...published
  } = manifest;
  return { ...published, optionalDependencies: { [`@hybrid/microvm-${PLATFORM}`]: manifest.version } };
}

/**
 * @param {string} destination an existing folder
 * @returns {{name: string, file: string, size: number, unpackedSize: number}[]}
 */
export function pack(destination) {
  const temporary = mkdtempSync(join(tmpdir(), 'microvm-pack-'));
  try {
    const root = join(temporary, 'root');
    mkdirSync(root);
    const manifest = rootForRelease();
    writeFileSync(join(root, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
    for (const path of [...manifest.files, 'README.md', 'LICENSE'])
      cpSync(join(PROJECT, path), join(root, path), { recursive: true });

    const platform = join(temporary, PLATFORM);
    cpSync(join(PROJECT, 'npm', PLATFORM), platform, { recursive: true });
    copyFileSync(join(PROJECT, 'LICENSE'), join(platform, 'LICENSE'));
    for (const file of NATIVE_FILES) copyFileSync(join(PROJECT, 'native', file), join(platform, file));
    const own = JSON.parse(readFileSync(join(platform, 'package.json'), 'utf8'));
    if (own.version !== manifest.version) {
      throw new SetUpError(`${own.name} has version ${own.version}, but ${manifest.name} has ${manifest.version}`);
    }
    return [npmPack(root, destination), npmPack(platform, destination)];
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

if (fileURLToPath(import.meta.url) === process.argv[1]) {
  const destination = resolve(process.argv[2] ?? '.');
  mkdirSync(destination, { recursive: true });
  for (const { file, size } of pack(destination)) console.log(`${basename(file)}  ${(size / 1024).toFixed(0)} KiB`);
}
