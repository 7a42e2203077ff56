// Puts a file into the cache in one step: readers see all of it or nothing, and of many who make it at once any one wins.

import { randomBytes } from 'node:crypto';
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { MicroVMError, errnoOf } from '../errors.ts';
import { processIdentity } from '../host/process-identity.ts';

/** `.tmp-<owner>-<random>`: the owner tells whether anybody still works on it. */
export const TEMPORARY: RegExp = /^\.tmp-(\d+-\d+)-[0-9a-f]+$/;

/** Lets `write` fill a file beside `path`, then gives it its name. Nothing is left when `write` rejects. */
export async function publishFile(path: string, write: (temporary: string) => Promise<void>): Promise<void> {
  const folder = dirname(path);
  const temporary = join(folder, `.tmp-${processIdentity()}-${randomBytes(6).toString('hex')}`);
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await write(temporary);
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {});
    const errno = errnoOf(cause);
    if (cause instanceof MicroVMError || !errno?.startsWith('E') || errno.startsWith('ERR_')) throw cause;
    throw new MicroVMError('ERR_CACHE', `Cannot write ${path} (${errno})`, {
      cause,
      hint: 'Free some space, run `microvm cache clean`, or point MICROVM_CACHE at another folder.',
    });
  }
}
