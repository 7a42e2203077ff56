// `--mount SRC:DST[:ro,cache=…]` and `--rootfs`, as options of `MicroVM.create`.

import { statSync } from 'node:fs';
import type { MicroVMOptions, MountOptions } from '../config/options.ts';
import { nearest } from '../config/suggest.ts';
import { UsageError } from './arguments.ts';

const FLAGS: Readonly<Record<string, Partial<MountOptions>>> = {
  ro: { readonly: true },
  rw: { readonly: false },
  writeback: { writeback: true },
  xattr: { xattr: true },
  'posix-acl': { posixAcl: true },
};
/** What is no number is left to be told with the other options. */
const number = (value: string): number => (/^\d+$/.test(value) ? Number(value) : (value as unknown as number));
const VALUES: Readonly<Record<string, (value: string) => Partial<MountOptions>>> = {
  cache: (value) => ({ cache: value as MountOptions['cache'] }),
  sandbox: (value) => ({ sandbox: value as MountOptions['sandbox'] }),
  threads: (value) => ({ threads: number(value) }),
  'request-queues': (value) => ({ requestQueues: number(value) }),
};

/** The mounts of all `--mount` options; what their values may be is checked with the other options. */
export function mountOptions(given: readonly string[]): MicroVMOptions['mounts'] {
  const mounts = given.map(mount);
  const targets = mounts.map(([target]) => target);
  const twice = targets.find((target, index) => targets.indexOf(target) !== index);
  if (twice !== undefined) throw new UsageError(`--mount has ${twice} twice`);
  return Object.fromEntries(mounts);
}

/** The source may have colons, as the guest's path begins with the first `:/` that leaves nothing but options behind it. */
function mount(text: string): [string, MountOptions] {
  const [, source = '', target = '', options] = /^(.+):(\/[^:]*)(?::([^:/]+))?$/s.exec(text) ?? [];
  if (source === '') throw new UsageError(`--mount takes SRC:DST[:ro,cache=…], not '${text}'`);
  const parts = options?.split(',').map(mountOption) ?? [];
  const names = parts.flatMap(Object.keys);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new UsageError(`--mount ${text} says twice what ${twice} is`);
  return [target, Object.assign({ source }, ...parts) as MountOptions];
}

function mountOption(text: string): Partial<MountOptions> {
  const [, name = '', value] = /^([^=]*)(?:=(.*))?$/s.exec(text) ?? [];
  if (value === undefined && Object.hasOwn(FLAGS, name)) return FLAGS[name] ?? {};
  if (value !== undefined && Object.hasOwn(VALUES, name)) return VALUES[name]?.(value) ?? {};
  const known = [...Object.keys(FLAGS), ...Object.keys(VALUES).map((known) => `${known}=`)];
  throw new UsageError(`--mount has no option '${text}'`, nearest(text, known));
}

/** A folder is run from, as packing it takes memory; an archive is packed. What cannot be looked at is left to be told. */
export function rootfsOption(text: string | undefined): MicroVMOptions['rootfs'] {
  if (text === undefined || ['default', 'none', 'host'].includes(text)) return text;
  try {
    return statSync(text).isDirectory() ? { dir: text } : text;
  } catch {
    return text;
  }
}
