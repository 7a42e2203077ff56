// What a machine takes of this host, and what its guest has left.

import type { RunningMachine } from '../accelerators/accelerator.ts';
import type { HostMetrics } from '../accelerators/metrics.ts';
import { MicroVMError } from '../errors.ts';
import type { AgentApi } from '../guest-api/agent-api.ts';
import { readShort } from '../guest-api/file-streams.ts';
import { kibibytes } from '../host/process-figures.ts';
import { endError } from './exit-error.ts';

/** /proc/meminfo has some 1.5 KiB. */
const MAX_MEMINFO_BYTES = 64 * 1024;

/** What a machine takes, at one moment. What cannot be told is undefined. */
export interface MachineMetrics extends HostMetrics {
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
  readonly machine: Pick<RunningMachine, 'metrics'>;
  readonly api: AgentApi;
  readonly ended: AbortSignal;
}): Promise<MachineMetrics> {
  try {
    const [host, guest] = await Promise.all([vm.machine.metrics(), guestMemory(vm.api)]);
    return { ...host, guest };
  } catch (error) {
    if (!vm.ended.aborted) throw error;
    throw endError(vm.ended, 'before its figures were told');
  }
}

async function guestMemory(api: AgentApi): Promise<MachineMetrics['guest']> {
  const text = await readShort(api, '/proc/meminfo', MAX_MEMINFO_BYTES);
  const [memoryTotalBytes, memoryAvailableBytes] = [kibibytes(text, 'MemTotal'), kibibytes(text, 'MemAvailable')];
  if (memoryTotalBytes === undefined || memoryAvailableBytes === undefined) {
    throw new MicroVMError('ERR_AGENT_PROTOCOL', "The agent did not send the guest's memory figures");
  }
  return { memoryTotalBytes, memoryAvailableBytes };
}
