// Refuses npm packages that users would get under licences that have not been agreed on.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT } from '../set-up/folders.mjs';
import { shippedPackages } from './shipped-packages.mjs';

const ALLOWED = new Set(['MIT', 'ISC', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', '0BSD']);

let refused = 0;
for (const path of shippedPackages()) {
  const {
    name,
    version,
    license = 'none given',
  } = JSON.parse(readFileSync(join(PROJECT, path, 'package.json'), 'utf8'));
  const fine = ALLOWED.has(license);
  if (!fine) refused += 1;
  console.log(`${fine ? 'ok     ' : 'REFUSED'} ${name}@${version}  ${license}`);
}
process.exitCode = refused === 0 ? 0 : 1;
