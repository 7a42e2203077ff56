// What a machine of QEMU's takes: by the system's account of its process, and by our own vsock device where that serves it.

import type { BindingVsockMetrics } from '../../binding.ts';
import { MicroVMError } from '../../errors.ts';
import { processMemory, processorTime } from '../../host/process-figures.ts';
import type { DeviceMetrics, HostMetrics } from '../metrics.ts';

/** What there is to look at. */
export interface QemuFigures {
  readonly pid: number;
  /** QEMU's answer to `query-cpus-fast`. */
  readonly cpus: unknown;
  /** Of our vsock device; undefined where the kernel's serves the guest. */
  readonly vsock: BindingVsockMetrics | undefined;
  readonly shares: number;
}

/** Looks once. Rejects where QEMU has ended. */
export async function qemuMetrics({ pid, cpus, vsock, shares }: QemuFigures): Promise<HostMetrics> {
  const [processMs, memory, ...vcpusMs] = await Promise.all([
    processorTime(pid),
    processMemory(pid),
    ...threadsOf(cpus).map((thread) => processorTime(pid, thread)),
  ]);
  const { residentBytes, proportionalBytes, sharedFileBytes } = memory;
  return {
    cpu: { totalMs: processMs + (vsock?.cpuMs ?? 0), vcpusMs },
    // QEMU shares no other file in memory than the guest's RAM.
    memory: { residentBytes, proportionalBytes, guestBytes: sharedFileBytes },
    devices: [device('vsock', vsock?.queues), device('rng'), ...Array.from({ length: shares }, () => device('fs'))],
  };
}

function device(type: DeviceMetrics['type'], queues?: DeviceMetrics['queues']): DeviceMetrics {
  return { type, acknowledgedInterrupts: undefined, queues };
}

/** The threads of the virtual processors, in the processors' order. */
function threadsOf(cpus: unknown): number[] {
  const threads = Array.isArray(cpus) ? cpus.map((cpu) => (cpu as { 'thread-id'?: unknown })['thread-id']) : [];
  if (threads.length === 0 || !threads.every(Number.isInteger)) {
    throw new MicroVMError('ERR_QEMU_FAILED', 'QEMU does not tell the threads of its processors');
  }
  return threads as number[];
}
