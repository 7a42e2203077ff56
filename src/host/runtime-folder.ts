// A private folder per machine for its sockets. A listening socket in it is the lock: whoever connects knows that the owner lives, across
// PID namespaces too, and the kernel takes it away however the owner dies. Folders without an answering lock are swept.

import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { MicroVMError, errnoOf } from '../errors.ts';
import { runtimeRoot } from './runtime-root.ts';
import { checkSocketPath } from './socket-path.ts';

const LOCK = 'lock';
/** What others may know of the machine, as JSON. */
export const FACTS = 'machine.json';
/** The folder of a machine without a name. */
const ID = /^[0-9a-f]{12}$/;
/** The beginning of the others. */
const NAMED = '@';
/** Folders that are being made or removed: no owner is asked, their age decides. */
const UNFINISHED = /^\.(?:new|dead)-/;
const UNFINISHED_MAX_AGE_MS = 60_000;
/** Room for the suffix that a guest's port adds to a socket's name. */
const LONGEST_SUFFIX = '_4294967295';

/** What others find a machine by. */
export interface RuntimeFacts {
  /** A name that no other running machine of this user has; without one the folder has an id of 12 digits. */
  readonly name?: string | undefined;
}

/** A private folder for one machine's sockets. */
export interface RuntimeFolder {
  readonly path: string;
  /** The machine's name, or its id. */
  readonly name: string;
  /** The path of a socket in the folder; throws when it, with a `_<port>` suffix, is too long for Linux. */
  socketPath(name: string): string;
  /** Removes the folder and all in it. Calling it again does nothing. */
  remove(): Promise<void>;
  /** The same for `process.on('exit')`. */
  removeSync(): void;
}

/**
 * Makes a private folder, after sweeping those whose owners died.
 *
 * @throws {MicroVMError} `ERR_RUNTIME_FOLDER`; `ERR_MACHINE_NAME_TAKEN` where a running machine has the name
 */
export async function createRuntimeFolder(root?: string, facts: RuntimeFacts = {}): Promise<RuntimeFolder> {
  const parent = root ?? (await runtimeRoot());
  await sweepRuntimeFolders(parent);
  const id = randomBytes(6).toString('hex');
  const name = facts.name ?? id;
  const path = join(parent, folderOf(name));
  checkSocketPath(join(path, LOCK));
  const unfinished = join(parent, `.new-${id}`);
  let lock: Server | undefined;
  try {
    await mkdir(unfinished, { mode: 0o700 });
    // The lock answers before the folder has its name, so no sweeper can take the folder for a dead one.
    lock = await listen(join(unfinished, LOCK));
    await writeFile(join(unfinished, FACTS), JSON.stringify({ pid: process.pid }));
    // A folder that holds something is not replaced: of two with one name the first has it.
    await rename(unfinished, path);
    return new LockedFolder(path, name, lock);
  } catch (cause) {
    lock?.close();
    await rm(unfinished, { recursive: true, force: true });
    if (cause instanceof MicroVMError) throw cause;
    if (facts.name !== undefined && ['ENOTEMPTY', 'EEXIST'].includes(errnoOf(cause) ?? '')) {
      throw new MicroVMError('ERR_MACHINE_NAME_TAKEN', `A machine named ${name} is running`, {
        cause,
        hint: 'Give another name, or stop that machine.',
      });
    }
    throw new MicroVMError('ERR_RUNTIME_FOLDER', `Cannot make a folder in ${parent} (${errnoOf(cause)})`, { cause });
  }
}

/** Removes the folders whose owners are gone; gives their names. Any number of processes may do it at the same time. */
export async function sweepRuntimeFolders(root: string, now: number = Date.now()): Promise<string[]> {
  const names = await readdir(root).catch((cause: unknown) => {
    throw new MicroVMError('ERR_RUNTIME_FOLDER', `Cannot read ${root} (${errnoOf(cause)})`, { cause });
  });
  const swept = await Promise.all(names.map(async (name) => ((await isAbandoned(root, name, now)) ? name : undefined)));
  const abandoned = swept.filter((name) => name !== undefined);
  await Promise.all(abandoned.map((name) => removeFolder(join(root, name))));
  return abandoned;
}

class LockedFolder implements RuntimeFolder {
  readonly path: string;
  readonly name: string;
  readonly #lock: Server;

  constructor(path: string, name: string, lock: Server) {
    this.path = path;
    this.name = name;
    this.#lock = lock;
  }

  socketPath(name: string): string {
    const path = join(this.path, name);
    checkSocketPath(`${path}${LONGEST_SUFFIX}`);
    return path;
  }

  async remove(): Promise<void> {
    if (!this.#lock.listening) return;
    // The folder goes first: while the lock answers nobody else touches it.
    await removeFolder(this.path);
    this.#lock.close();
  }

  removeSync(): void {
    if (!this.#lock.listening) return;
    rmSync(this.path, { recursive: true, force: true });
    this.#lock.close();
  }
}

function listen(path: string): Promise<Server> {
  // One who asks has his answer by connecting: there is nothing to say.
  const server = createServer((connection) => connection.destroy());
  server.unref();
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(checkSocketPath(path), () => {
      server.off('error', reject);
      // An accept that fails (no descriptors left) costs one asker his answer, not the process its life.
      server.on('error', () => {});
      resolve(server);
    });
  });
}

async function isAbandoned(root: string, name: string, now: number): Promise<boolean> {
  const path = join(root, name);
  if (UNFINISHED.test(name)) {
    const made = await stat(path).catch(() => undefined);
    return made !== undefined && now - made.ctimeMs > UNFINISHED_MAX_AGE_MS;
  }
  return nameOf(name) !== undefined && !(await isAlive(path));
}

/** The folder of a machine. */
export function folderOf(name: string): string {
  return ID.test(name) ? name : `${NAMED}${name}`;
}

/** The name or id of the machine that a folder is of; undefined where it is none of ours. */
export function nameOf(folder: string): string | undefined {
  if (folder.startsWith(NAMED)) return folder.slice(NAMED.length);
  return ID.test(folder) ? folder : undefined;
}

/** Whether the owner of a folder lives. */
export function isAlive(folder: string): Promise<boolean> {
  return answers(join(folder, LOCK));
}

/** Only a refusal, or a lock that is not there, tells that the owner is gone: a busy owner does not lose its folder. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = connect(path);
    connection.once('connect', () => resolve(true));
    connection.once('error', (error) => resolve(!['ECONNREFUSED', 'ENOENT'].includes(errnoOf(error) ?? '')));
    connection.once('connect', () => connection.destroy());
  });
}

/** Takes the folder out of the others' sight first, so that one of many removers does the work. */
async function removeFolder(path: string): Promise<void> {
  const dead = join(path, '..', `.dead-${randomBytes(6).toString('hex')}`);
  try {
    await rename(path, dead);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    throw error;
  }
  await rm(dead, { recursive: true, force: true });
}
