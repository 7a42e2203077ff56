// The extensions of KVM that our monitor uses, by name.

import { type ExtensionName, extensionNumber } from '../kvm/extensions.ts';

/** Without these no machine is made. */
const EVERYWHERE = ['KVM_CAP_USER_MEMORY', 'KVM_CAP_IRQFD', 'KVM_CAP_IOEVENTFD', 'KVM_CAP_IMMEDIATE_EXIT'] as const;
const REQUIRED: Readonly<Record<string, readonly ExtensionName[]>> = {
  x86_64: [
    ...EVERYWHERE,
    'KVM_CAP_IRQCHIP',
    'KVM_CAP_SET_TSS_ADDR',
    'KVM_CAP_EXT_CPUID',
    'KVM_CAP_MP_STATE',
    'KVM_CAP_MAX_VCPUS',
  ],
  aarch64: [...EVERYWHERE, 'KVM_CAP_DEVICE_CTRL'],
};
/** Worth having: a timer without exits, and registers without calls. */
const WANTED: Readonly<Record<string, readonly ExtensionName[]>> = {
  x86_64: ['KVM_CAP_TSC_DEADLINE_TIMER', 'KVM_CAP_SYNC_REGS'],
};

/** Whether KVM has an extension, by its number: what `KVM_CHECK_EXTENSION` answers; 0 where it has not. */
export type ExtensionAnswer = (number: number) => number;

/** Names of the extensions that machines need on this architecture. */
export function requiredExtensions(arch: string): readonly ExtensionName[] {
  return REQUIRED[arch] ?? EVERYWHERE;
}

/** Those of some extensions that KVM lacks. */
export function lacking(names: readonly ExtensionName[], answer: ExtensionAnswer): readonly ExtensionName[] {
  return names.filter((name) => answer(extensionNumber(name)) <= 0);
}

/** Names of those that make machines faster. */
export function wantedExtensions(arch: string): readonly ExtensionName[] {
  return WANTED[arch] ?? [];
}

/** All of them, with the numbers that the kernel knows them by. */
export const KVM_EXTENSIONS: ReadonlyMap<ExtensionName, number> = new Map(
  [...Object.values(REQUIRED), ...Object.values(WANTED)].flat().map((name) => [name, extensionNumber(name)]),
);
