// What a failed start of a machine says a person can do: the checks that its error is about, and no others.

import { MicroVMError, type MicroVMErrorCode, withDetails } from '../errors.ts';
import { checkGuestKernel } from './checks/guest-kernel.ts';
import { checkLimits } from './checks/limits.ts';
import { checkMemory } from './checks/memory.ts';
import { checkPackage } from './checks/package.ts';
import { checkQemu } from './checks/qemu.ts';
import type { Context } from './context.ts';
import type { DoctorHost } from './host.ts';
import { inspectAll } from './inspect-all.ts';
import { examineDevice } from './kvm/device.ts';
import { problemHint } from './kvm/hint.ts';
import { createProblem, deviceProblem } from './kvm/problems.ts';
import { vhostVsockProblem } from './vhost-vsock.ts';
import type { Finding, Problem } from './model.ts';

type Question = (host: DoctorHost, device: string) => readonly Problem[] | Promise<readonly Problem[]>;

const ofCheck =
  (check: (context: Context) => Finding | Promise<Finding>): Question =>
  async (host, kvmDevice) => {
    // None of these asks about KVM.
    const context: Context = {
      host,
      kvmDevice,
      device: { state: 'missing' },
      kvm: undefined,
      speed: undefined,
      caller: undefined,
    };
    return (await check(context)).problems;
  };

const kvm: Question = (host, device) => {
  const problem = deviceProblem(host, device, examineDevice(host, device));
  if (problem !== undefined) return [problem];
  const answers = host.kvm(device, []);
  return answers?.ok && !answers.value.createVm.ok ? [createProblem(host, answers.value.createVm.errno)] : [];
};

const vhostVsock: Question = (host) => {
  const problem = vhostVsockProblem(host);
  return problem === undefined ? [] : [problem];
};

const QUESTIONS: Partial<Record<MicroVMErrorCode, readonly Question[]>> = {
  ERR_KVM_MISSING: [kvm],
  ERR_KVM_PERMISSION: [kvm],
  ERR_KVM_FAILED: [kvm, ofCheck(checkMemory), ofCheck(checkLimits)],
  ERR_VHOST_VSOCK_MISSING: [vhostVsock],
  ERR_VHOST_VSOCK_PERMISSION: [vhostVsock],
  ERR_VHOST_VSOCK_FAILED: [vhostVsock],
  ERR_QEMU_MISSING: [ofCheck(checkQemu)],
  ERR_QEMU_TOO_OLD: [ofCheck(checkQemu)],
  ERR_QEMU_FAILED: [ofCheck(checkQemu), ofCheck(checkMemory)],
  ERR_KERNEL_NOT_FOUND: [ofCheck(checkGuestKernel)],
  ERR_NATIVE_MISSING: [ofCheck(checkPackage)],
  ERR_AGENT_MISSING: [ofCheck(checkPackage)],
  ERR_MACHINE_FAILED: [ofCheck(checkMemory), ofCheck(checkLimits)],
  ERR_SPAWN_FAILED: [ofCheck(checkMemory), ofCheck(checkLimits)],
};

/** The error with the first relevant problem's fix as its hint; the error itself where nothing was found, or it has a hint. */
export async function withStartHint(error: unknown, kvmDevice: string, host?: DoctorHost): Promise<unknown> {
  if (!(error instanceof MicroVMError) || error.hint !== undefined) return error;
  const questions = QUESTIONS[error.code];
  if (questions === undefined) return error;
  try {
    const asked = host ?? inspectAll();
    for (const question of questions) {
      const [first] = await question(asked, kvmDevice);
      if (first !== undefined) return withDetails(error, { hint: problemHint(first, asked) });
    }
  } catch {
    // The failure itself matters more than a diagnosis that failed too.
  }
  return error;
}
