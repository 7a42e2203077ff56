// The machines of this user that run, in whatever process: found by their private folders.

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { nearest } from '../config/suggest.ts';
import { MicroVMError } from '../errors.ts';
import { FACTS, folderOf, isAlive, nameOf } from './runtime-folder.ts';
import { runtimeRoot } from './runtime-root.ts';

/** A machine of another process. */
export interface FoundMachine {
  /** Its name, or its id. */
  readonly name: string;
  /** The process that owns it, as that process sees itself. */
  readonly pid: number | undefined;
  /** The Unix socket of its vsock. */
  readonly socket: string;
}

/** The names and ids of the machines that run. */
export async function runningMachines(root?: string): Promise<string[]> {
  const parent = root ?? (await runtimeRoot());
  const folders = (await readdir(parent)).filter((folder) => nameOf(folder) !== undefined);
  const alive = await Promise.all(folders.map((folder) => isAlive(join(parent, folder))));
  return folders.filter((_, index) => alive[index]).map((folder) => nameOf(folder) ?? folder);
}

/**
 * The machine with this name or id.
 *
 * @throws {MicroVMError} `ERR_MACHINE_NOT_FOUND` with those that run; `ERR_MACHINE_EXITED` where its owner is gone
 */
export async function findMachine(name: string, root?: string): Promise<FoundMachine> {
  const parent = root ?? (await runtimeRoot());
  const folder = join(parent, folderOf(name));
  // With a slash it would be a path to somewhere else.
  const facts = name.includes('/') ? undefined : await readFacts(join(folder, FACTS));
  if (facts === undefined) throw await notFound(name, parent);
  if (!(await isAlive(folder))) {
    throw new MicroVMError(
      'ERR_MACHINE_EXITED',
      `The process that owned the machine ${name} is gone, and so is the machine`,
      {
        hint: `Start it again: microvm run --name ${name} -- COMMAND`,
      },
    );
  }
  return { name, pid: facts.pid, socket: join(folder, 'vsock') };
}

async function readFacts(path: string): Promise<Pick<FoundMachine, 'pid'> | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch {
    // No such folder; or its owner is taking it down.
    return undefined;
  }
  const { pid } = parsed(text);
  return { pid: typeof pid === 'number' ? pid : undefined };
}

function parsed(text: string): Readonly<Record<string, unknown>> {
  try {
    return Object(JSON.parse(text)) as Record<string, unknown>;
  } catch {
    return {};
  }
}

async function notFound(name: string, parent: string): Promise<MicroVMError> {
  const running = await runningMachines(parent);
  const meant = nearest(name, running);
  const list = running.length === 0 ? 'No machine of yours is running.' : `Running: ${running.sort().join(', ')}.`;
  return new MicroVMError('ERR_MACHINE_NOT_FOUND', `No running machine is named ${name}`, {
    hint: meant === undefined ? list : `Did you mean ${meant}? ${list}`,
  });
}
