// The processor's virtualization flag. It explains a missing device; where KVM works it is not needed: para-virtual
// hosts show none.

import type { Context } from '../context.ts';
import { type Finding, found, type Problem } from '../model.ts';
import { firmwareFixes } from '../kvm/problems.ts';
import { virtualizationFlag } from '../processor.ts';

const [ID, LABEL] = ['cpu-virtualization', 'CPU virt'] as const;

export function checkCpuVirtualization({ host, device, kvm }: Context): Finding {
  if (host.arch !== 'x86_64') return { checks: [], problems: [] };
  const flag = virtualizationFlag(host);
  if (flag !== undefined) return found(ID, LABEL, 'pass', flag);
  if (kvm?.ok || device.state === 'usable') return found(ID, LABEL, 'info', 'no flag, but KVM is offered without it');
  // A device that may not be opened is there because KVM found what it needs.
  if (device.state === 'refused' || device.state === 'forbidden') return found(ID, LABEL, 'info', 'no flag');
  const problem: Problem = {
    id: ID,
    check: ID,
    title: 'CPU virtualization is not available',
    causes: [
      'no vmx (Intel) or svm (AMD) flag in /proc/cpuinfo',
      'it is switched off in the BIOS or UEFI firmware',
      'in a virtual machine, its host does not pass it on (nested virtualization)',
    ],
    fixes: firmwareFixes(host),
  };
  return { ...found(ID, LABEL, 'fail', 'not found'), problems: [problem] };
}
