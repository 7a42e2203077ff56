// How this host runs guest code. A host may offer a KVM device that emulates every instruction of a guest kernel: it
// opens and answers like any other, and yet a stock kernel takes minutes to boot or never does. Only measuring tells.

import { loadBinding } from '../native.ts';

/** Times as much slower as the same code on the host; 1 is equal speed. */
export interface GuestSpeed {
  /** Guest ring 0, where the kernel runs. */
  readonly ring0Ratio: number;
  /** Guest ring 3, where programs run; undefined where it could not be measured. */
  readonly ring3Ratio: number | undefined;
}

/** Native hosts measure 1 to 10 (the exit from the guest is in it), emulating ones from 500. */
const EMULATED_FROM = 50;

const measured = new Map<string, Promise<GuestSpeed>>();

/**
 * Measures once per process and device; takes less than a millisecond on a native host, 0.1 s on an emulating one.
 * Rejects with the addon's error when the device cannot be used; such a failure is not remembered.
 */
export function guestSpeed(kvmDevice: string): Promise<GuestSpeed> {
  const known = measured.get(kvmDevice);
  if (known) return known;
  const measurement = loadBinding()
    .measureGuestSpeed(kvmDevice)
    .then(({ ring0Ratio, ring3Ratio }) => ({ ring0Ratio, ring3Ratio }));
  measured.set(kvmDevice, measurement);
  measurement.catch(() => measured.delete(kvmDevice));
  return measurement;
}

/** Whether a guest kernel runs at about the speed of the host's own code. */
export function runsKernelsNatively(speed: GuestSpeed): boolean {
  return speed.ring0Ratio < EMULATED_FROM;
}
