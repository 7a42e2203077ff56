// The file that our VMM boots for a kernel. A bzImage unpacks itself in the guest; unpacked once on the host and
// cached, each boot saves that time.

import { createHash } from 'node:crypto';
import { stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { cacheFolder } from '../cache/folder.ts';
import { holdEntry } from '../cache/hold.ts';
import { publishFile } from '../cache/publish.ts';
import { MicroVMError } from '../errors.ts';
import type { GuestKernel } from '../guest/kernel.ts';
import { loadBinding } from '../native.ts';

/** A kernel to boot; `release` it when the machine has read it. */
export interface BootableImage {
  readonly path: string;
  release(): Promise<void>;
}

/** The unpacked kernel from the cache, made when it is not there; the kernel itself where it cannot be unpacked. */
export async function bootableImage(kernel: GuestKernel): Promise<BootableImage> {
  const packed: BootableImage = { path: kernel.image, release: () => Promise.resolve() };
  if (kernel.format === 'elf') return packed;
  const path = join(cacheFolder(), 'vmlinux', await nameOf(kernel.image));
  const hold = await holdEntry(path);
  try {
    if (await isCached(path)) return { path, release: () => hold.release() };
    await publishFile(path, async (temporary) => {
      if (!(await loadBinding().extractVmlinux(kernel.image, temporary))) throw new NotUnpacked();
    });
    return { path, release: () => hold.release() };
  } catch (error) {
    await hold.release();
    // Without the room for a copy the guest can still do the work itself.
    if (error instanceof NotUnpacked || (error instanceof MicroVMError && error.code === 'ERR_CACHE')) return packed;
    throw error;
  }
}

class NotUnpacked extends Error {}

/** Kernels are replaced, not edited: what identifies the file identifies its contents. */
async function nameOf(image: string): Promise<string> {
  const { dev, ino, size, mtimeNs, ctimeNs } = await stat(image, { bigint: true });
  const identity = [image, dev, ino, size, mtimeNs, ctimeNs].join('\0');
  return createHash('sha256').update(identity).digest('hex').slice(0, 32);
}

async function isCached(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  if (!found?.isFile()) return false;
  // For `microvm cache ls`; a cache that cannot be written to works as well.
  const now = new Date();
  await utimes(path, now, now).catch(() => {});
  return true;
}
