// The states of the KVM device as errors of a start, with the hint that the doctor gives.

import { MicroVMError, type MicroVMErrorCode } from '../../errors.ts';
import type { Host } from '../host.ts';
import type { DeviceState } from './device.ts';
import { problemHint } from './hint.ts';
import { deviceProblem, emulatedProblem, extensionsProblem, times } from './problems.ts';

/** Why a device in this state cannot be used; undefined where it can. */
export function deviceError(host: Host, device: string, state: DeviceState): MicroVMError | undefined {
  const words = wordsOf(device, state);
  if (words === undefined) return undefined;
  const [code, message] = words;
  const problem = deviceProblem(host, device, state);
  return new MicroVMError(code, message, { hint: problem && problemHint(problem, host) });
}

/** The error of a device that emulates guest kernels. */
export function emulatedError(device: string, ring0Ratio: number): MicroVMError {
  const message = `${device} emulates guest kernel code, ${times(ring0Ratio)} times slower than native`;
  const [way] = emulatedProblem(device, ring0Ratio).fixes;
  return new MicroVMError('ERR_KVM_EMULATED', message, {
    hint: `A stock kernel takes minutes to boot there, or hangs: ${way?.description ?? 'use another host'}.`,
  });
}

/** The error of a KVM without extensions that machines need. */
export function extensionsError(device: string, missing: readonly string[]): MicroVMError {
  const [way] = extensionsProblem(missing).fixes;
  return new MicroVMError('ERR_KVM_EXTENSION', `${device} lacks ${missing.join(', ')}`, {
    hint: `Without them no machine is made: ${way?.description ?? 'use another host'}.`,
  });
}

function wordsOf(device: string, state: DeviceState): [MicroVMErrorCode, string] | undefined {
  switch (state.state) {
    case 'usable':
      return undefined;
    case 'missing':
      return ['ERR_KVM_MISSING', `${device} does not exist`];
    case 'hidden':
      return ['ERR_KVM_PERMISSION', `${device} cannot be looked at (${state.errno})`];
    case 'not-a-device':
      return ['ERR_KVM_NOT_A_DEVICE', `${device} is not a device`];
    case 'refused':
      return ['ERR_KVM_PERMISSION', `${device} exists, but this user may not open it`];
    case 'forbidden':
      return ['ERR_KVM_PERMISSION', `${device} exists, but the device cgroup does not permit its use`];
    case 'unavailable':
      return ['ERR_KVM_FAILED', `${device} could not be opened (${state.errno})`];
  }
}
