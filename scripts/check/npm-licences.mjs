// Refuses production dependencies under licences that have not been agreed on. Prints what is shipped.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT } from '../set-up/folders.mjs';

const ALLOWED = new Set(['MIT', 'ISC', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', '0BSD', 'BlueOak-1.0.0']);

const { packages } = JSON.parse(readFileSync(join(PROJECT, 'package-lock.json'), 'utf8'));
const shipped = Object.entries(packages).filter(
  ([path, entry]) => path !== '' && !entry.dev && !entry.devOptional && !entry.link,
);

let refused = 0;
for (const [path, { version, optional }] of shipped) {
  let manifest;
  try {
    manifest = JSON.parse(readFileSync(join(PROJECT, path, 'package.json'), 'utf8'));
  } catch (error) {
    // A package of another platform is not installed here.
    if (optional && error.code === 'ENOENT') continue;
    throw error;
  }
  const licence = manifest.license ?? 'none given';
  const fine = ALLOWED.has(licence);
  if (!fine) refused += 1;
  console.log(`${fine ? 'ok' : 'REFUSED'}  ${manifest.name}@${version}  ${licence}`);
}
process.exitCode = refused === 0 ? 0 : 1;
