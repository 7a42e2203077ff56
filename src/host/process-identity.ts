// A process id alone may have passed to another process; with the time of its start it names one process for good.

import { readFileSync } from 'node:fs';

/** `<pid>-<start time in clock ticks>`, good for file names. Undefined when there is no such process. */
export function processIdentity(pid: number = process.pid): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name, in parentheses, may hold anything; the start time is the 20th field after it.
    const startTime = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    return startTime === undefined ? undefined : `${pid}-${startTime}`;
  } catch {
    return undefined;
  }
}

/** Whether the process that this names is still there. */
export function isAlive(identity: string): boolean {
  const pid = Number.parseInt(identity, 10);
  return Number.isInteger(pid) && processIdentity(pid) === identity;
}
