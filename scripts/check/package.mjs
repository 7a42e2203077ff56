// Tries the packages as a user gets them: packs both, installs them into an empty folder without the checkout,
// and runs the library and the command with the oldest Node that is promised, or else the one at hand.

import { cpSync, mkdtempSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pack } from '../pack.mjs';
import { capture } from '../set-up/commands.mjs';
import { PROJECT, exists } from '../set-up/folders.mjs';
import { shippedPackages } from './shipped-packages.mjs';

const folder = mkdtempSync(join(tmpdir(), 'microvm-package-'));

/**
 * @param {string} what
 * @param {string[]} command
 */
function must(what, [file, ...args]) {
  const { status, stdout, stderr } = capture(file, args, { cwd: folder });
  if (status !== 0) throw new Error(`${what} failed with ${status}:\n${stdout}${stderr}`);
  return stdout;
}

/** The oldest Node on this machine: the one that npm scripts hide behind node_modules/.bin, where there is one. */
function oldestNode() {
  const outside = (process.env.PATH ?? '').split(':').filter((entry) => !entry.includes('node_modules'));
  const nodes = [process.execPath, ...outside.map((entry) => join(entry, 'node')).filter(exists)];
  const versions = nodes
    .map((node) => ({ node, version: capture(node, ['-p', 'process.versions.node']).stdout.trim() }))
    .filter(({ version }) => version !== '');
  return versions.sort((a, b) => a.version.localeCompare(b.version, 'en', { numeric: true }))[0];
}

try {
  must('publint', [join(PROJECT, 'node_modules/.bin/publint'), '--strict', PROJECT]);

  const packages = pack(folder);
  for (const { name, size, unpackedSize } of packages) {
    console.log(`${name}: ${(size / 1024).toFixed(0)} KiB packed, ${(unpackedSize / 1024).toFixed(0)} KiB unpacked`);
  }

  writeFileSync(join(folder, 'package.json'), '{"private": true, "type": "module"}\n');
  // Unpacked by hand and with the checkout's own copies of the dependencies: no registry is asked.
  const scope = join(folder, 'node_modules/@hybrid');
  for (const { name, file } of packages) {
    const target = join(scope, name.split('/')[1]);
    mkdirSync(target, { recursive: true });
    must('tar', ['tar', '-xzf', file, '--strip-components=1', '-C', target]);
  }
  for (const path of shippedPackages()) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    cpSync(join(PROJECT, path), join(folder, path), { recursive: true });
  }

  const { node, version } = oldestNode();
  const names = must('import', [
    node,
    '-e',
    "Promise.all([import('@hybrid/microvm'), import('@hybrid/microvm/kvm'), import('@hybrid/microvm/ring3'), import('@hybrid/microvm/doctor')]).then((parts) => console.log(parts.flatMap(Object.keys).join(' ')))",
  ]);
  if (!/\bMicroVM\b/.test(names)) throw new Error(`The package does not export MicroVM, but: ${names}`);
  if (!/\bPlatform\b/.test(names)) throw new Error(`The package does not export Platform, but: ${names}`);
  if (!/\bdoctor\b/.test(names)) throw new Error(`The package does not export doctor, but: ${names}`);
  must('microvm --help', [node, 'node_modules/@hybrid/microvm/dist/src/cli/main.js', '--help']);
  console.log(`imports and runs on Node ${version}: ${readdirSync(scope).join(', ')}`);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
