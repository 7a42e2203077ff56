// Picks the accelerator: the caller's explicit choice, or by measuring what this host can do.

import type { MachineSpec } from '../config/machine-spec.ts';
import { inspectHost } from '../doctor/inspect-host.ts';
import { examineDevice } from '../doctor/kvm/device.ts';
import { deviceError, emulatedError, extensionsError } from '../doctor/kvm/errors.ts';
import { MicroVMError } from '../errors.ts';
import { guestSpeed, runsKernelsNatively } from '../host/guest-speed.ts';
import { lacking, requiredExtensions } from '../host/kvm-extensions.ts';
import { loadBinding } from '../native.ts';
import { fromNative } from '../native-error.ts';
import type { Accelerator } from './accelerator.ts';
import { kvm } from './kvm.ts';
import { tcg } from './qemu/tcg.ts';

/** An accelerator, with the reason for it in one line. */
export interface Choice {
  readonly accelerator: Accelerator;
  readonly reason: string;
}

type Wish = Pick<MachineSpec, 'accelerator' | 'kvmDevice' | 'hugePages'>;

/**
 * Picks the accelerator for a machine. `auto` falls back to tcg; asking for kvm where it cannot run a stock guest is
 * an error instead of a guest that hangs, unless MICROVM_KVM_EMULATED=1 says to try.
 *
 * @throws {MicroVMError} with the code of what is wrong with the KVM device, or `ERR_KVM_EMULATED`, for `kvm` only;
 *   `ERR_NOT_SUPPORTED` where the choice cannot do what the machine needs.
 */
export async function chooseAccelerator(spec: Wish): Promise<Choice> {
  const choice = await choose(spec);
  if (spec.hugePages && choice.accelerator === tcg) {
    throw new MicroVMError('ERR_NOT_SUPPORTED', `The tcg accelerator cannot use huge pages (${choice.reason})`, {
      hint: "Leave out hugePages, or use accelerator: 'kvm'.",
    });
  }
  return choice;
}

async function choose(spec: Wish): Promise<Choice> {
  if (spec.accelerator === 'tcg') return { accelerator: tcg, reason: 'tcg was asked for' };
  const problem = await kvmProblem(spec.kvmDevice);
  if (!problem) {
    const reason = spec.accelerator === 'kvm' ? 'kvm was asked for' : `${spec.kvmDevice} runs guest kernels natively`;
    return { accelerator: kvm, reason };
  }
  if (spec.accelerator === 'auto') return { accelerator: tcg, reason: `tcg (slow): ${problem.message}` };
  if (problem.code === 'ERR_KVM_EMULATED' && process.env['MICROVM_KVM_EMULATED'] === '1') {
    return { accelerator: kvm, reason: `kvm was asked for, although ${problem.message}` };
  }
  throw problem;
}

async function kvmProblem(device: string): Promise<MicroVMError | undefined> {
  const host = inspectHost();
  const problem = deviceError(host, device, examineDevice(host, device));
  if (problem) return problem;
  try {
    const speed = await guestSpeed(device);
    if (!runsKernelsNatively(speed)) return emulatedError(device, speed.ring0Ratio);
    const missing = lackedExtensions(host.arch, device);
    return missing.length === 0 ? undefined : extensionsError(device, missing);
  } catch (error) {
    return fromNative(error, {}, device);
  }
}

function lackedExtensions(arch: string, device: string): readonly string[] {
  const kvm = loadBinding().BindingKvm.open({ path: device });
  try {
    return lacking(requiredExtensions(arch), (number) => kvm.checkExtension(number));
  } finally {
    kvm.close();
  }
}
