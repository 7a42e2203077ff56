// Whether KVM makes a machine: another hypervisor that holds the processor shows here and not before.

import type { Context } from '../context.ts';
import { createProblem } from '../kvm/problems.ts';
import { type Finding, found } from '../model.ts';

const [ID, LABEL] = ['kvm-create', 'KVM machine'] as const;

export function checkKvmCreate({ host, kvm }: Context): Finding {
  if (!kvm?.ok) return { checks: [], problems: [] };
  const { createVm } = kvm.value;
  if (createVm.ok) return found(ID, LABEL, 'pass', 'can be created');
  return { ...found(ID, LABEL, 'fail', createVm.errno), problems: [createProblem(host, createVm.errno)] };
}
