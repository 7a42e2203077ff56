// What a process holds, to compare before and after.

import { execFile } from 'node:child_process';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { promisify } from 'node:util';

import { runtimeRoot } from '../../src/host/runtime-root.ts';
import { threadNames } from './threads.ts';

/** Everything a machine could leave behind in this process and beside it. */
export interface Holdings {
  /** Targets of open descriptors that are not Node's own pipes and event descriptors. */
  readonly descriptors: readonly string[];
  readonly threads: readonly string[];
  readonly children: readonly string[];
  readonly runtimeFolders: readonly string[];
}

/** What this process holds right now. */
export async function holdings(): Promise<Holdings> {
  return {
    descriptors: await descriptors(),
    threads: threads(),
    children: (await children()).map(({ name }) => name).toSorted(),
    runtimeFolders: await runtimeFolders(),
  };
}

async function descriptors(): Promise<string[]> {
  const targets = await Promise.all(
    (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => undefined)),
  );
  // Inode numbers differ from run to run: sockets are counted by kind.
  return targets
    .filter((target) => target !== undefined && !target.startsWith('/proc/'))
    .map((target) => (target as string).replace(/:\[\d+\]$/, ''))
    .toSorted();
}

function threads(): string[] {
  // The addon's pool for blocking calls grows when it is needed and shrinks when it is not.
  return threadNames()
    .filter((name) => name !== 'tokio-rt-worker')
    .toSorted();
}

/** The children of all threads of this process. */
export async function children(): Promise<{ readonly pid: number; readonly name: string }[]> {
  const lists = await Promise.all(
    (await readdir('/proc/self/task')).map((id) => readFile(`/proc/self/task/${id}/children`, 'utf8').catch(() => '')),
  );
  const pids = lists.flatMap((list) => list.split(' ')).filter((id) => id !== '');
  return Promise.all(
    pids.map(async (pid) => ({
      pid: Number(pid),
      name: (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim(),
    })),
  );
}

/** The last in the line of a process's first children: of a daemon, the one that serves. */
export async function lastChild(pid: number): Promise<number> {
  const line = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  const child = Number(line.trim().split(' ')[0]);
  return child === 0 ? pid : lastChild(child);
}

/** Resolves when a process that is not ours has ended: `tail --pid` waits for it. */
export async function processEnd(pid: number): Promise<void> {
  await promisify(execFile)('tail', ['--pid', String(pid), '-f', '/dev/null']);
}

/** The machines' private folders of this user; set TMPDIR or XDG_RUNTIME_DIR first to see those of one test only. */
export async function runtimeFolders(): Promise<string[]> {
  const root = await runtimeRoot();
  return (await readdir(root)).toSorted();
}
