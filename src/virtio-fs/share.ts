// What of this host's files a machine gets, and how the guest is told.

import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import type { MachineSpec, MountSpec } from '../config/machine-spec.ts';
import { MicroVMError, errnoOf } from '../errors.ts';

/** A folder or file that was found, for one daemon to serve. */
export interface Share extends Omit<MountSpec, 'target'> {
  /** By which the guest mounts it. */
  readonly tag: string;
  /** What it is called in messages: the guest's path. */
  readonly target: string;
  /** Whether mount points in it are mount points in the guest too. An overlay refuses those that it does not know. */
  readonly announceSubmounts: boolean;
  /** The word for the agent on the kernel command line. */
  readonly word: string;
}

/** All that a machine shares, the root folder first. Rejects with `ERR_ROOTFS_MISSING` or `ERR_MOUNT_SOURCE`. */
export async function findShares({ rootfs, mounts }: Pick<MachineSpec, 'rootfs' | 'mounts'>): Promise<Share[]> {
  const root = rootfs.kind === 'share' ? [rootShare(rootfs)] : [];
  return Promise.all([...root, ...mounts.map(mountShare)]);
}

/** Names of kernel modules that the shares take. */
export function shareModules(shares: readonly Share[], { rootfs }: Pick<MachineSpec, 'rootfs'>): string[] {
  const overlay = rootfs.kind === 'share' && !rootfs.writable;
  return [...(shares.length > 0 ? ['virtiofs'] : []), ...(overlay ? ['overlay'] : [])];
}

async function rootShare({ path, writable }: { path: string; writable: boolean }): Promise<Share> {
  const found = await stat(path).catch((cause: unknown) => {
    const why = errnoOf(cause) === 'ENOENT' ? 'does not exist' : `cannot be read (${errnoOf(cause)})`;
    throw new MicroVMError('ERR_ROOTFS_MISSING', `The root folder ${path} ${why}`, { cause });
  });
  if (!found.isDirectory()) throw new MicroVMError('ERR_ROOTFS_INVALID', `The root folder ${path} is no folder`);
  return {
    tag: 'root',
    target: '/',
    source: path,
    readonly: !writable,
    cache: 'auto',
    writeback: false,
    xattr: false,
    posixAcl: false,
    translateUid: undefined,
    translateGid: undefined,
    threads: 0,
    requestQueues: 1,
    sandbox: 'namespace',
    announceSubmounts: false,
    word: `microvm.root=root,${writable ? 'rw' : 'overlay'}`,
  };
}

async function mountShare(mount: MountSpec, index: number): Promise<Share> {
  const { source, target } = mount;
  const found = await stat(source).catch((cause: unknown) => {
    const why = errnoOf(cause) === 'ENOENT' ? 'does not exist' : `cannot be read (${errnoOf(cause)})`;
    throw new MicroVMError('ERR_MOUNT_SOURCE', `${source}, which is to be mounted at ${target}, ${why}`, { cause });
  });
  if (!found.isDirectory() && !found.isFile()) {
    throw new MicroVMError('ERR_MOUNT_SOURCE', `${source}, which is to be mounted at ${target}, is no folder or file`);
  }
  const tag = `fs${index}`;
  const words = [tag, mount.readonly ? 'ro' : 'rw', encoded(target)];
  if (found.isFile()) {
    if (mount.sandbox === 'none') {
      throw new MicroVMError('ERR_NOT_SUPPORTED', `${source} is a file, which takes the sandbox 'namespace'`, {
        hint: `Mount its folder at ${target}'s, or leave the option sandbox away.`,
      });
    }
    words.push(encoded(basename(source)));
  }
  return { ...mount, tag, announceSubmounts: true, word: `microvm.mount=${words.join(',')}` };
}

/** Nothing is left that the kernel or the agent takes for an end of the word. */
function encoded(text: string): string {
  return [...Buffer.from(text)]
    .map((byte) => {
      const character = String.fromCharCode(byte);
      return /[A-Za-z0-9/._-]/.test(character) ? character : `%${byte.toString(16).padStart(2, '0')}`;
    })
    .join('');
}
