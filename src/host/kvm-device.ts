// Words about the KVM device: what is wrong with it, and what a person can do.

import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { MicroVMError, errnoOf } from '../errors.ts';

/** Why the KVM device cannot be used; undefined where this user may open it. Does not open it. */
export async function kvmDeviceProblem(device: string): Promise<MicroVMError | undefined> {
  try {
    if (!(await stat(device)).isCharacterDevice()) {
      return new MicroVMError('ERR_KVM_NOT_A_DEVICE', `${device} is not a device`, {
        hint: kvmHint('ERR_KVM_NOT_A_DEVICE'),
      });
    }
    await access(device, constants.R_OK | constants.W_OK);
    return undefined;
  } catch (cause) {
    if (errnoOf(cause) === 'EACCES') {
      return new MicroVMError('ERR_KVM_PERMISSION', `${device} exists, but this user may not open it`, {
        cause,
        hint: kvmHint('ERR_KVM_PERMISSION'),
      });
    }
    return new MicroVMError('ERR_KVM_MISSING', `${device} does not exist`, { cause, hint: kvmHint('ERR_KVM_MISSING') });
  }
}

/** What to do about a failure of the KVM device; undefined for other codes. */
export function kvmHint(code: string): string | undefined {
  switch (code) {
    case 'ERR_KVM_MISSING':
      return (
        'Load the module (modprobe kvm_intel or kvm_amd) and enable virtualization in the firmware; in a virtual ' +
        "machine enable nested virtualization, in a container pass the device. accelerator: 'tcg' works without it."
      );
    case 'ERR_KVM_PERMISSION':
      return "Add the user to the device's group (sudo usermod -aG kvm $USER) and log in again.";
    case 'ERR_KVM_NOT_A_DEVICE':
      return 'Give the path of the KVM character device, by default /dev/kvm.';
    case 'ERR_KVM_API_VERSION':
      return 'The kernel is too old or too new for this package; every Linux since 2.6.22 speaks version 12.';
    default:
      return undefined;
  }
}
