// The whole diagnosis.

import { MicroVMError } from '../errors.ts';
import { conclude, type Verdict, verdictFinding } from './checks/accelerator.ts';
import { checkConfinement } from './checks/confinement.ts';
import { checkCpuVirtualization } from './checks/cpu-virtualization.ts';
import { checkDevices } from './checks/devices.ts';
import { checkGuestKernel } from './checks/guest-kernel.ts';
import { checkGuestSpeed } from './checks/guest-speed.ts';
import { checkKernelInterfaces } from './checks/kernel-interfaces.ts';
import { checkKvmAccess } from './checks/kvm-access.ts';
import { checkKvmApi } from './checks/kvm-api.ts';
import { checkKvmCreate } from './checks/kvm-create.ts';
import { checkKvmDevice } from './checks/kvm-device.ts';
import { checkLimits } from './checks/limits.ts';
import { checkMemory } from './checks/memory.ts';
import { checkPackage } from './checks/package.ts';
import { checkPlatform } from './checks/platform.ts';
import { checkQemu } from './checks/qemu.ts';
import { checkSurroundings } from './checks/surroundings.ts';
import { checkTuning } from './checks/tuning.ts';
import { checkVsock } from './checks/vsock.ts';
import { type Context, prepare } from './context.ts';
import type { DoctorHost } from './host.ts';
import { inspectAll } from './inspect-all.ts';
import type { Check, Finding, Problem, Section } from './model.ts';

/** Version of the report's layout; a field that changes its meaning or goes away raises it. */
export const REPORT_VERSION = 1;

/** What is to be looked at. */
export interface DoctorOptions {
  /** Path of the KVM device. @default '/dev/kvm' */
  readonly kvmDevice?: string | undefined;
  /** The accelerator that must be usable for the report to be `ok`. @default 'auto' */
  readonly accelerator?: 'auto' | 'kvm' | 'tcg' | undefined;
}

/** What was found out. Plain data: `JSON.stringify` gives what `microvm doctor --json` prints. */
export interface DoctorReport {
  /** Version of this layout. */
  readonly version: typeof REPORT_VERSION;
  /** Version of the package. */
  readonly packageVersion: string;
  /** The accelerator that was asked about. */
  readonly accelerator: 'auto' | 'kvm' | 'tcg';
  /** Whether microVMs can run here by that accelerator; with `auto`, by any. */
  readonly ok: boolean;
  readonly verdict: Verdict;
  readonly sections: readonly Section[];
}

type CheckFunction = (context: Context) => Finding | Promise<Finding>;

/** The sections in the order in which they are shown: what stands in the way of the rest comes first. */
const SECTIONS: readonly (readonly [title: string, ...checks: CheckFunction[]])[] = [
  ['Package', checkPackage],
  ['Host', checkPlatform, checkSurroundings, checkCpuVirtualization],
  ['KVM', checkKvmDevice, checkKvmAccess, checkKvmApi, checkKvmCreate, checkGuestSpeed],
  ['Emulation', checkQemu],
  ['Guest', checkGuestKernel],
  ['Memory and limits', checkMemory, checkLimits],
  ['Devices and interfaces', checkVsock, checkDevices, checkKernelInterfaces],
  ['Confinement', checkConfinement],
  ['Tuning', checkTuning],
];

/**
 * Finds out whether this host can run microVMs, and if not, what to do. Nothing is changed but for modules that the
 * kernel may load for an interface that is tried. Takes a fraction of a second.
 *
 * ```ts
 * const { ok, verdict, sections } = await doctor();
 * if (!ok) for (const { problems } of sections) for (const { title, fixes } of problems) console.log(title, fixes);
 * ```
 *
 * @throws {MicroVMError} `ERR_INVALID_OPTIONS`. What is wrong with the host is in the report.
 */
export function doctor(options: DoctorOptions = {}): Promise<DoctorReport> {
  return diagnose(inspectAll(), options);
}

/** The same for any host. */
export async function diagnose(host: DoctorHost, options: DoctorOptions = {}): Promise<DoctorReport> {
  const { accelerator = 'auto', kvmDevice = '/dev/kvm' } = options;
  if (!['auto', 'kvm', 'tcg'].includes(accelerator)) {
    throw new MicroVMError('ERR_INVALID_OPTIONS', `accelerator must be auto, kvm or tcg, not ${String(accelerator)}`);
  }
  if (typeof kvmDevice !== 'string' || !kvmDevice.startsWith('/')) {
    throw new MicroVMError('ERR_INVALID_OPTIONS', `kvmDevice must be an absolute path, not ${String(kvmDevice)}`);
  }
  const context = await prepare(host, kvmDevice);
  const sections = await Promise.all(SECTIONS.map(([title, ...checks]) => runSection(context, title, checks)));
  const checks = sections.flatMap((section): readonly Check[] => section.checks);
  const problems = sections.flatMap((section): readonly Problem[] => section.problems);
  const verdict = conclude(context, checks, problems);
  return {
    version: REPORT_VERSION,
    packageVersion: host.packageFacts().version,
    accelerator,
    ok: accelerator === 'auto' ? verdict.auto !== undefined : verdict[accelerator].usable,
    verdict,
    sections: [...sections, { title: 'Accelerator', ...verdictFinding(verdict) }],
  };
}

async function runSection(context: Context, title: string, checks: readonly CheckFunction[]): Promise<Section> {
  const findings = await Promise.all(checks.map((check) => check(context)));
  return {
    title,
    checks: findings.flatMap((finding) => finding.checks),
    problems: findings.flatMap((finding) => finding.problems),
  };
}
