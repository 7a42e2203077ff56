// What a virtual machine monitor costs in memory beyond its guest's RAM.

import { readFileSync } from 'node:fs';

/** How Linux names the mappings of guest RAM: ours, and QEMU's. */
const GUEST_RAM = /memfd:(?:microvm-ram|memory-backend-memfd)/;
/** Header of a mapping in smaps: `start-end flags offset device inode  name`. */
const MAPPING = /^[0-9a-f]+-[0-9a-f]+ /;

/** Bytes of the process's proportional set size, without guest RAM. */
export function memoryBeyondGuest(pid: number | 'self'): number {
  let kibibytes = 0;
  let counts = true;
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
    if (MAPPING.test(line)) counts = !GUEST_RAM.test(line);
    else if (counts && line.startsWith('Pss:')) kibibytes += Number.parseInt(line.slice(4), 10);
  }
  return kibibytes * 1024;
}
