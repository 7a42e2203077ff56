// Finds the kernel to boot, checks it, and finds its modules.

import { access } from 'node:fs/promises';
import { release as hostRelease } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { cacheFolder } from '../cache/folder.ts';
import type { MachineSpec } from '../config/machine-spec.ts';
import { MicroVMError } from '../errors.ts';
import { inspectKernel, type KernelImage } from './kernel-image.ts';

/** A kernel that was found and looks bootable. */
export interface GuestKernel extends KernelImage {
  /** Absolute path. */
  readonly image: string;
  /** Folder with `modules.dep`; undefined when there is none: then everything must be built in. */
  readonly modules: string | undefined;
  /** Where it came from. */
  readonly source: 'option' | 'environment' | 'cache' | 'boot';
}

/** Where to search; tests point it elsewhere. */
export interface KernelPlaces {
  /** @default process.env */
  readonly env?: NodeJS.ProcessEnv;
  /** @default /boot */
  readonly boot?: string;
}

/** The kernel that was asked for, else $MICROVM_KERNEL, else the one in the cache, else the host's own if it can be read. */
export async function findKernel(asked: MachineSpec['kernel'], places: KernelPlaces = {}): Promise<GuestKernel> {
  const { env = process.env, boot = '/boot' } = places;
  if (asked) return describeKernel(asked.image, 'option', asked.modules);
  const named = env['MICROVM_KERNEL'];
  if (named) return describeKernel(resolve(named), 'environment');

  const lookedAt = ['the kernel option: not given', '$MICROVM_KERNEL: not set'];
  const candidates = [
    { path: cachedKernel(env), source: 'cache' },
    { path: join(boot, `vmlinuz-${hostRelease()}`), source: 'boot' },
  ] as const;
  for (const { path, source } of candidates) {
    try {
      return await describeKernel(path, source);
    } catch (error) {
      if (!(error instanceof MicroVMError)) throw error;
      lookedAt.push(`${path}: ${error.code === 'ERR_KERNEL_MISSING' ? 'not there' : error.message}`);
    }
  }
  throw new MicroVMError('ERR_KERNEL_NOT_FOUND', `No guest kernel was found. Looked at:\n  ${lookedAt.join('\n  ')}`, {
    lookedAt,
    hint: "Let `npm start` in the project's checkout fetch Debian's kernel, or give the kernel option or MICROVM_KERNEL.",
  });
}

/** Where the set-up puts the kernel. */
export function cachedKernel(env: NodeJS.ProcessEnv = process.env): string {
  return join(cacheFolder(env), 'guest', 'current', 'vmlinuz');
}

async function describeKernel(path: string, source: GuestKernel['source'], modules?: string): Promise<GuestKernel> {
  const image = await inspectKernel(path);
  const folder =
    modules === undefined ? await modulesBeside(path, image.release) : await modulesIn(modules, image.release);
  return { ...image, image: path, modules: folder, source };
}

/** Beside the image as the cache has it, beside its /boot as a package has it, or the host's own. */
async function modulesBeside(image: string, release: string | undefined): Promise<string | undefined> {
  if (release === undefined) return undefined;
  const folder = dirname(image);
  const candidates = [
    join(folder, 'modules', release),
    join(folder, '..', 'lib/modules', release),
    join('/lib/modules', release),
  ];
  return firstWithModules(candidates);
}

async function modulesIn(folder: string, release: string | undefined): Promise<string> {
  const found = await firstWithModules([folder, ...(release === undefined ? [] : [join(folder, release)])]);
  if (found !== undefined) return found;
  const inside = release === undefined ? '' : `, and no ${join(release, 'modules.dep')}`;
  throw new MicroVMError('ERR_KERNEL_MODULES', `${folder} has no readable modules.dep${inside}`, {
    hint: 'Give the folder that `make modules_install` or a kernel package fills (lib/modules/<release>); depmod writes modules.dep.',
  });
}

async function firstWithModules(folders: readonly string[]): Promise<string | undefined> {
  for (const folder of folders) {
    const isThere = await access(join(folder, 'modules.dep')).then(
      () => true,
      () => false,
    );
    if (isThere) return folder;
  }
  return undefined;
}
