// What another process of this host takes, by its /proc folder (proc(5)).

import { readFile } from 'node:fs/promises';

/** The kernel tells processor time in hundredths of a second (USER_HZ), whatever its own clock is. */
const TICK_MS = 10;
/** Fields of /proc/PID/stat, counted from the one behind the name: time in user mode, and in the kernel. */
const USER_TIME = 11;
const SYSTEM_TIME = 12;

/** Memory of a process, in bytes. */
export interface ProcessMemory {
  /** What is in use; what is shared with other processes counts in full. */
  readonly residentBytes: number;
  /** What of that is shared files in memory, such as a guest's RAM. */
  readonly sharedFileBytes: number;
  /** What is in use, where shared memory counts by its share. Undefined where the kernel does not tell. */
  readonly proportionalBytes: number | undefined;
}

/** Processor time in milliseconds, of a process or of one of its threads. Rejects where there is no such. */
export async function processorTime(pid: number, thread?: number): Promise<number> {
  const folder = thread === undefined ? `/proc/${pid}` : `/proc/${pid}/task/${thread}`;
  const stat = await readFile(`${folder}/stat`, 'latin1');
  // The name may hold anything, blanks and parentheses too.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[USER_TIME]) + Number(fields[SYSTEM_TIME])) * TICK_MS;
}

/** Memory of a process. Rejects where there is no such process. */
export async function processMemory(pid: number): Promise<ProcessMemory> {
  const [status, rollup] = await Promise.all([
    readFile(`/proc/${pid}/status`, 'latin1'),
    readFile(`/proc/${pid}/smaps_rollup`, 'latin1').catch(() => ''),
  ]);
  return {
    residentBytes: kibibytes(status, 'VmRSS') ?? 0,
    sharedFileBytes: kibibytes(status, 'RssShmem') ?? 0,
    proportionalBytes: kibibytes(rollup, 'Pss'),
  };
}

/** A line of the kernel's, `Name:   123 kB`, in bytes. */
export function kibibytes(text: string, name: string): number | undefined {
  const [, digits] = new RegExp(`^${name}:\\s+(\\d{1,12}) kB$`, 'm').exec(text) ?? [];
  return digits === undefined ? undefined : Number(digits) * 1024;
}
