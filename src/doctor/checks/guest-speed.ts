// How fast guest code runs: the same measurement by which `auto` chooses.

import { runsKernelsNatively } from '../../host/guest-speed.ts';
import type { Context } from '../context.ts';
import { emulatedProblem, times } from '../kvm/problems.ts';
import { type Finding, found } from '../model.ts';

const [ID, LABEL] = ['guest-speed', 'Guest speed'] as const;

export function checkGuestSpeed({ kvmDevice, speed }: Context): Finding {
  if (speed === undefined) return { checks: [], problems: [] };
  if (!speed.ok) return found(ID, LABEL, 'fail', `cannot be measured (${speed.errno})`);
  const { ring0Ratio, ring3Ratio } = speed.value;
  const programs = ring3Ratio === undefined ? '' : `, programs ${times(ring3Ratio)} times`;
  if (runsKernelsNatively(speed.value)) {
    return found(ID, LABEL, 'pass', `native (kernel code ${times(ring0Ratio)} times the host's time${programs})`);
  }
  return {
    ...found(ID, LABEL, 'fail', `emulated: kernel code ${times(ring0Ratio)} times the host's time${programs}`),
    problems: [emulatedProblem(kvmDevice, ring0Ratio)],
  };
}
