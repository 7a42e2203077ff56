// The threads of this process.

import { readdirSync, readFileSync } from 'node:fs';

/** Bit of a task's flags while it ends: `PF_EXITING` of the kernel. */
const PF_EXITING = 0x4;
/** Which field of `/proc/PID/stat` has the flags, counted from the one behind the name (proc(5)). */
const FLAGS = 6;

/**
 * Their names. One that ends counts as gone: who joins it goes on a moment before the kernel takes it off the list, and
 * nothing tells when that is.
 */
export function threadNames(): string[] {
  return readdirSync('/proc/self/task').flatMap((id) => {
    try {
      return nameUnlessEnding(readFileSync(`/proc/self/task/${id}/stat`, 'utf8'));
    } catch {
      // It has ended meanwhile.
      return [];
    }
  });
}

function nameUnlessEnding(stat: string): string[] {
  // A name may have any characters.
  const end = stat.lastIndexOf(')');
  const flags = Number(stat.slice(end + 2).split(' ')[FLAGS]);
  return flags & PF_EXITING ? [] : [stat.slice(stat.indexOf('(') + 1, end)];
}
