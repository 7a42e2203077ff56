// Whether the KVM device is there.

import type { Context } from '../context.ts';
import { type Finding, found } from '../model.ts';
import { deviceProblem } from '../kvm/problems.ts';

const [ID, LABEL] = ['kvm-device', 'KVM device'] as const;
const WORDS: Readonly<Record<string, string>> = {
  missing: 'missing',
  hidden: 'hidden',
  'not-a-device': 'not a device',
};

export function checkKvmDevice({ host, kvmDevice, device }: Context): Finding {
  const word = WORDS[device.state];
  if (word === undefined) return found(ID, LABEL, 'pass', kvmDevice);
  const problem = deviceProblem(host, kvmDevice, device);
  return { ...found(ID, LABEL, 'fail', word), problems: problem ? [problem] : [] };
}
