// What a machine takes of this host, and what its guest has left.

import { readFile } from 'node:fs/promises';
import type { MachineExit } from '../accelerators/accelerator.ts';
import { MicroVMError } from '../errors.ts';
import type { AgentApi } from '../guest-api/agent-api.ts';
import { readContent } from '../guest-api/file-streams.ts';
import { exitError } from './exit-error.ts';
import type { MachineInfo } from './info.ts';

/** /proc/meminfo has some 1.5 KiB. */
const MAX_MEMINFO_BYTES = 64 * 1024;
/** The kernel tells processor time in hundredths of a second (USER_HZ), whatever its own clock is. */
const TICK_MS = 10;
/** Fields of /proc/PID/stat, counted from the one behind the name (proc(5)): time in user mode, and in the kernel. */
const USER_TIME = 11;
const SYSTEM_TIME = 12;

/** What a machine takes, at one moment. What cannot be told is undefined. */
export interface MachineMetrics {
  /**
   * Of the process that runs the guest, which is QEMU's with `tcg`. With `kvm` the guest runs in this process, beside all
   * else that it does, so that its share cannot be told from outside: undefined.
   */
  readonly process:
    | {
        /** Processor time in milliseconds since the start, of the guest and of what is emulated for it. */
        readonly cpuMs: number;
        /** Memory that is in use, in bytes; what is shared with other processes counts in full. */
        readonly residentBytes: number;
        /** The same, where shared memory counts by its share. Undefined where the kernel does not tell. */
        readonly proportionalBytes: number | undefined;
      }
    | undefined;
  /** Of the guest's memory, as its kernel sees it. */
  readonly guest: {
    /** What the kernel has to give out: less than the machine's, as the kernel itself takes some. */
    readonly memoryTotalBytes: number;
    /** What programs could still get without swapping. */
    readonly memoryAvailableBytes: number;
  };
}

/** Looks once. */
export async function metricsOf(vm: {
  readonly info: MachineInfo;
  readonly api: AgentApi;
  readonly ended: AbortSignal;
}): Promise<MachineMetrics> {
  const { pid, accelerator } = vm.info;
  try {
    const looks = [guestMemory(vm.api), accelerator === 'tcg' ? processOf(pid) : undefined] as const;
    const [guest, process] = await Promise.all(looks);
    return { process, guest };
  } catch (error) {
    if (!vm.ended.aborted) throw error;
    const exit = vm.ended.reason as MachineExit;
    throw exitError(exit, 'before its figures were told', exit.consoleTail);
  }
}

async function processOf(pid: number): Promise<MachineMetrics['process']> {
  const text = (name: string): Promise<string | undefined> =>
    readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => undefined);
  const [stat, status, rollup] = await Promise.all([text('stat'), text('status'), text('smaps_rollup')]);
  const resident = kibibytes(status, 'VmRSS');
  if (stat === undefined || resident === undefined) return undefined;
  // The name may hold anything, blanks and parentheses too.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(fields[USER_TIME]) + Number(fields[SYSTEM_TIME]);
  return { cpuMs: ticks * TICK_MS, residentBytes: resident, proportionalBytes: kibibytes(rollup, 'Pss') };
}

async function guestMemory(api: AgentApi): Promise<MachineMetrics['guest']> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of readContent(api, '/proc/meminfo', undefined, undefined)) {
    bytes += piece.length;
    if (bytes > MAX_MEMINFO_BYTES) break;
    pieces.push(piece);
  }
  const text = Buffer.concat(pieces).toString('latin1');
  const [memoryTotalBytes, memoryAvailableBytes] = [kibibytes(text, 'MemTotal'), kibibytes(text, 'MemAvailable')];
  if (memoryTotalBytes === undefined || memoryAvailableBytes === undefined) {
    throw new MicroVMError('ERR_AGENT_PROTOCOL', "The agent did not send the guest's memory figures");
  }
  return { memoryTotalBytes, memoryAvailableBytes };
}

/** A line of the kernel's, `Name:   123 kB`, in bytes. */
function kibibytes(text: string | undefined, name: string): number | undefined {
  const [, digits] = new RegExp(`^${name}:\\s+(\\d{1,12}) kB$`, 'm').exec(text ?? '') ?? [];
  return digits === undefined ? undefined : Number(digits) * 1024;
}
