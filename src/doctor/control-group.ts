// The limits of this process's control group. A limit of any group above it holds too, so the least one counts.

import { dirname, join } from 'node:path';
import type { Host } from './host.ts';

const ROOT = '/sys/fs/cgroup';

/** The limits; undefined where there is none, or none can be seen. */
export interface ControlGroup {
  readonly memoryBytes: number | undefined;
  readonly usedBytes: number | undefined;
  readonly cpus: number | undefined;
  readonly pids: number | undefined;
}

/** Reads the limits of version 2, and the memory limit of version 1. */
export function controlGroup(host: Host): ControlGroup {
  const lines = host.readText('/proc/self/cgroup');
  const entries = (lines.ok ? lines.value : '').split('\n').map((line) => line.split(':'));
  const unified = entries.find(([number]) => number === '0')?.[2] ?? '/';
  const old = entries.find(([, controllers]) => controllers?.split(',').includes('memory'))?.[2];
  const v2 = upwards(unified).map((path) => join(ROOT, path));
  const v1 = old === undefined ? [] : upwards(old).map((path) => join(ROOT, 'memory', path));
  const limits = [
    ...v2.map((folder) => ({
      limit: number(host, folder, 'memory.max'),
      used: withoutCache(host, folder, 'memory.current', 'inactive_file'),
    })),
    ...v1.map((folder) => ({
      limit: number(host, folder, 'memory.limit_in_bytes'),
      used: withoutCache(host, folder, 'memory.usage_in_bytes', 'total_inactive_file'),
    })),
  ].filter(({ limit }) => limit !== undefined && limit < 2 ** 60);
  const tightest = limits.sort((a, b) => room(a) - room(b))[0];
  return {
    memoryBytes: tightest?.limit,
    usedBytes: tightest?.used,
    cpus: least(v2.map((folder) => cpusOf(host, folder))),
    pids: least(v2.map((folder) => number(host, folder, 'pids.max'))),
  };
}

function room({
  limit = Number.POSITIVE_INFINITY,
  used = 0,
}: {
  limit: number | undefined;
  used: number | undefined;
}): number {
  return limit - used;
}

function upwards(path: string): string[] {
  return path === '/' ? ['/'] : [path, ...upwards(dirname(path))];
}

function number(host: Host, folder: string, name: string): number | undefined {
  const text = host.readText(join(folder, name));
  // "max" is no limit.
  const value = text.ok ? Number.parseInt(text.value, 10) : Number.NaN;
  return Number.isNaN(value) ? undefined : value;
}

/** What is used, without the file cache that the kernel gives up when memory is asked for. */
function withoutCache(host: Host, folder: string, used: string, cache: string): number | undefined {
  const bytes = number(host, folder, used);
  const text = host.readText(join(folder, 'memory.stat'));
  const cached = text.ok ? Number(new RegExp(`^${cache} (\\d+)$`, 'm').exec(text.value)?.[1] ?? 0) : 0;
  return bytes === undefined ? undefined : Math.max(0, bytes - cached);
}

function cpusOf(host: Host, folder: string): number | undefined {
  const text = host.readText(join(folder, 'cpu.max'));
  const [quota, period] = text.ok ? text.value.trim().split(' ').map(Number) : [];
  return quota === undefined || period === undefined || Number.isNaN(quota) ? undefined : quota / period;
}

function least(values: readonly (number | undefined)[]): number | undefined {
  const present = values.filter((value) => value !== undefined);
  return present.length === 0 ? undefined : Math.min(...present);
}
