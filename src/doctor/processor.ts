// What /proc/cpuinfo says of the processor.

import type { Host } from './host.ts';

/** The flag of the processor's virtualization, `vmx` (Intel) or `svm` (AMD); undefined where it shows none. */
export function virtualizationFlag(host: Host): 'vmx' | 'svm' | undefined {
  const info = host.readText('/proc/cpuinfo');
  const flags = info.ok ? (/^flags\s*:(.*)$/m.exec(info.value)?.[1]?.split(/\s+/) ?? []) : [];
  return (['vmx', 'svm'] as const).find((flag) => flags.includes(flag));
}

/** The kernel module that serves this processor; undefined where none would load. */
export function kvmModule(host: Host): 'kvm_intel' | 'kvm_amd' | undefined {
  if (host.arch !== 'x86_64') return undefined;
  const flag = virtualizationFlag(host);
  return flag && (flag === 'vmx' ? 'kvm_intel' : 'kvm_amd');
}
