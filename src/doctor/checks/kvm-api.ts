// KVM's API version, and the extensions that machines need.

import { lacking, requiredExtensions, wantedExtensions } from '../../host/kvm-extensions.ts';
import type { Context } from '../context.ts';
import type { KvmAnswers } from '../host.ts';
import { extensionsProblem } from '../kvm/problems.ts';
import { type Finding, found, type Problem, together } from '../model.ts';

const API_VERSION = 12;
const [API, EXTENSIONS] = ['kvm-api', 'kvm-extensions'] as const;

const REFUSALS: Readonly<Record<string, string>> = {
  ERR_KVM_API_VERSION: `the kernel speaks another version of the KVM API than ${API_VERSION}, which every Linux since 2.6.22 does`,
  ERR_KVM_NOT_A_DEVICE: 'it is another device',
};
const VALUES: Readonly<Record<string, string>> = {
  ERR_KVM_API_VERSION: 'another version',
  ERR_KVM_NOT_A_DEVICE: 'not KVM',
};

export function checkKvmApi({ host, kvmDevice, kvm }: Context): Finding {
  if (kvm === undefined) return { checks: [], problems: [] };
  if (!kvm.ok) {
    const problem: Problem = {
      id: API,
      check: API,
      title: `${kvmDevice} does not answer as KVM does`,
      causes: [REFUSALS[kvm.errno] ?? `asking for its version failed with ${kvm.errno}`],
      fixes: [],
    };
    return { ...found(API, 'KVM API', 'fail', VALUES[kvm.errno] ?? kvm.errno), problems: [problem] };
  }
  return together(
    found(API, 'KVM API', 'pass', `version ${kvm.value.apiVersion}`),
    checkExtensions(host.arch, kvm.value),
  );
}

function checkExtensions(arch: string, { extensions }: KvmAnswers): Finding {
  const answer = (number: number): number => extensions.get(number) ?? 0;
  const required = requiredExtensions(arch);
  const missing = lacking(required, answer);
  if (missing.length > 0) {
    return {
      ...found(EXTENSIONS, 'KVM extensions', 'fail', `${missing.length} missing`),
      problems: [extensionsProblem(missing)],
    };
  }
  const slower = lacking(wantedExtensions(arch), answer);
  const value = `all that are needed: ${required.map(shortName).join(', ')}`;
  if (slower.length === 0) return found(EXTENSIONS, 'KVM extensions', 'pass', value);
  return found(
    EXTENSIONS,
    'KVM extensions',
    'info',
    `${value}; machines are slower without ${slower.map(shortName).join(', ')}`,
  );
}

function shortName(name: string): string {
  return name.replace('KVM_CAP_', '');
}
