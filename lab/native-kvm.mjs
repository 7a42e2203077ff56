// Whether this machine's KVM runs guests natively.

import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { PROJECT, exists } from '../scripts/set-up/folders.mjs';

/** Measured with the product's own probe; a checkout that is not built yet counts as "no". */
export async function isKvmNative() {
  if (process.env.LAB === 'native' || process.env.MICROVM_LAB === '1') return true;
  if (process.env.LAB === 'nested') return false;
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    return false;
  }
  const probe = join(PROJECT, 'dist/src/host/guest-speed.js');
  if (!exists(probe)) return false;
  const { guestSpeed, runsKernelsNatively } = await import(pathToFileURL(probe).href);
  try {
    return runsKernelsNatively(await guestSpeed('/dev/kvm'));
  } catch {
    return false;
  }
}
