// The host as it is: its files, its user database, its programs.

import { accessSync, closeSync, constants, openSync, readFileSync, type Stats, statSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { join } from 'node:path';
import type { Binding } from '../binding.ts';
import { errnoOf } from '../errors.ts';
import { systemAccounts } from '../host/accounts.ts';
import { loadBinding } from '../native.ts';
import { parseAcl } from './acl.ts';
import type { FileFacts, Host, Outcome } from './host.ts';

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64', ia32: 'i686' };
const ACCESS_LIST = 'system.posix_acl_access';
/** An ordinary user's PATH often lacks these, and yet sudo finds programs there. */
const ROOTS_FOLDERS = ['/usr/local/sbin', '/usr/sbin', '/sbin'];

/** This host, as this process sees it now. */
export function inspectHost(env: NodeJS.ProcessEnv = process.env): Host {
  const binding = bindingOrNone();
  const accounts = systemAccounts(binding);
  return {
    arch: ARCHITECTURES[process.arch] ?? process.arch,
    env,
    identity: {
      uid: process.geteuid?.() ?? 0,
      gid: process.getegid?.() ?? 0,
      groups: process.getgroups?.() ?? [],
    },
    stat: (path) => attempt(() => factsOf(statSync(path))),
    readText: (path) => attempt(() => readFileSync(path, 'utf8')),
    open: (path) =>
      // Without waiting: a device that is asked for by mistake may be one that does.
      attempt(() => closeSync(openSync(path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOCTTY))),
    ...accounts,
    acl(path) {
      if (binding === undefined) return 'unknown';
      const value = attempt(() => binding.extendedAttribute(path, ACCESS_LIST));
      if (!value.ok) return 'unknown';
      return value.value === null ? undefined : (parseAcl(value.value) ?? 'unknown');
    },
    program: (name) => programIn([...(env['PATH'] ?? '').split(':'), ...ROOTS_FOLDERS], name),
  };
}

/** The addon; undefined where it cannot be had, which is what the doctor then reports first. */
export function bindingOrNone(): Binding | undefined {
  try {
    const binding = loadBinding();
    // One of another version may lack what is asked of it.
    return typeof (binding as Partial<Binding>).addonVersion === 'function' ? binding : undefined;
  } catch {
    return undefined;
  }
}

/** The answer of a call, or the name of its errno; the code of an error that has none. */
export function attempt<T>(call: () => T): Outcome<T> {
  try {
    return { ok: true, value: call() };
  } catch (error) {
    return { ok: false, errno: errnoName(error) };
  }
}

/** The errno name of a failed call of Node or of the addon, or what it is called otherwise. */
export function errnoName(error: unknown): string {
  const number = error instanceof Error && 'errno' in error ? Math.abs(Number(error.errno)) : 0;
  const names = Object.entries(osConstants.errno);
  return names.find(([, value]) => value === number)?.[0] ?? errnoOf(error) ?? String(error);
}

function factsOf(stats: Stats): FileFacts {
  const kind = stats.isCharacterDevice()
    ? 'character device'
    : stats.isFile()
      ? 'file'
      : stats.isDirectory()
        ? 'folder'
        : stats.isSocket()
          ? 'socket'
          : 'other';
  return { kind, mode: stats.mode & 0o7777, uid: stats.uid, gid: stats.gid };
}

function programIn(folders: readonly string[], name: string): string | undefined {
  const candidates = name.includes('/')
    ? [name]
    : folders.filter((folder) => folder !== '').map((folder) => join(folder, name));
  return candidates.find((path) => {
    const usable = attempt(() => accessSync(path, constants.X_OK));
    return usable.ok && statSync(path).isFile();
  });
}
