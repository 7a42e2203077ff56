// Memory for machines: what the host has free, and what the control group leaves of it.

import { type ControlGroup, controlGroup } from '../control-group.ts';
import type { Context } from '../context.ts';
import type { DoctorHost } from '../host.ts';
import { type Finding, fix, found, type Problem, together } from '../model.ts';
import { fieldOf, sizeText } from '../texts.ts';

const MIB = 2 ** 20;
/** The default size of a machine. */
const MACHINE_BYTES = 256 * MIB;
const [FREE, SHM] = ['memory', 'shared-memory'] as const;

export function checkMemory({ host }: Context): Finding {
  return together(freeMemory(host), sharedMemory(host), ...controlGroupLimits(controlGroup(host)));
}

function freeMemory(host: DoctorHost): Finding {
  const text = host.readText('/proc/meminfo');
  const bytes = text.ok ? Number.parseInt(fieldOf(text.value, 'MemAvailable') ?? '', 10) * 1024 : Number.NaN;
  if (Number.isNaN(bytes)) return found(FREE, 'Memory', 'info', 'cannot be told');
  if (bytes >= MACHINE_BYTES) return found(FREE, 'Memory', 'pass', `${sizeText(bytes)} available`);
  return short(
    FREE,
    'Memory',
    `${sizeText(bytes)} available`,
    'the host has less memory free than a default machine takes (256 MiB)',
  );
}

function sharedMemory(host: DoctorHost): Finding {
  const bytes = host.freeBytes('/dev/shm');
  // Guest memory is a memfd, which this limit does not count; other monitors use files here.
  return found(SHM, '/dev/shm', 'info', bytes === undefined ? 'not there' : `${sizeText(bytes)} free`);
}

function controlGroupLimits({ memoryBytes, usedBytes, cpus, pids }: ControlGroup): Finding[] {
  const limits = [
    memoryBytes === undefined ? undefined : `memory ${sizeText(memoryBytes)}`,
    cpus === undefined ? undefined : `${cpus.toFixed(1)} CPUs`,
    pids === undefined ? undefined : `${pids} tasks`,
  ].filter((limit) => limit !== undefined);
  const all = found('cgroup', 'cgroup limits', 'info', limits.length === 0 ? 'none' : limits.join(', '));
  if (memoryBytes === undefined || memoryBytes - (usedBytes ?? 0) >= MACHINE_BYTES) return [all];
  const left = `${sizeText(Math.max(0, memoryBytes - (usedBytes ?? 0)))} left`;
  return [
    all,
    short(
      'cgroup-memory',
      'cgroup memory',
      left,
      'the control group leaves less memory than a default machine takes (256 MiB)',
    ),
  ];
}

function short(id: string, label: string, value: string, cause: string): Finding {
  const problem: Problem = {
    id,
    check: id,
    title: 'memory is short',
    causes: [cause],
    fixes: [fix('free some, raise the limit, or give machines less by the option memory')],
  };
  return { ...found(id, label, 'warn', value), problems: [problem] };
}
