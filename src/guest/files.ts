// Where the files of a guest come from, before anybody has looked for them.

import { resolve } from 'node:path';
import type { MachineSpec } from '../config/machine-spec.ts';
import { cachedKernel } from './kernel.ts';
import { cachedUserland } from './rootfs.ts';

/** The paths that the machine's kernel, modules and root file system may be read from; they need not exist. */
export function guestFiles({ kernel, rootfs }: Pick<MachineSpec, 'kernel' | 'rootfs'>): string[] {
  const named = process.env['MICROVM_KERNEL'];
  const image = kernel?.image ?? (named ? resolve(named) : cachedKernel());
  const paths = kernel?.modules === undefined ? [image] : [image, kernel.modules];
  if (rootfs.kind === 'default') paths.push(cachedUserland());
  if (rootfs.kind === 'path') paths.push(rootfs.path);
  return paths;
}
