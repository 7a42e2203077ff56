// Which accelerator machines get here: the outcome of all the other checks.

import { runsKernelsNatively } from '../../host/guest-speed.ts';
import type { Context } from '../context.ts';
import { times } from '../kvm/problems.ts';
import { type Check, type Finding, found, type Problem } from '../model.ts';

/** Whether an accelerator can run machines here, and why not. */
export interface Usability {
  readonly usable: boolean;
  readonly reason: string;
}

/** What machines get here. */
export interface Verdict {
  readonly kvm: Usability;
  readonly tcg: Usability;
  /** What `accelerator: 'auto'` takes; undefined where there is nothing to take. */
  readonly auto: 'kvm' | 'tcg' | undefined;
  /** Why, in one line. */
  readonly reason: string;
}

/** Draws the conclusion. */
export function conclude(context: Context, checks: readonly Check[], problems: readonly Problem[]): Verdict {
  const failed = (id: string): Problem | undefined => problems.find(({ check }) => check === id);
  const broken = ['addon', 'agent'].map(failed).find((problem) => problem !== undefined);
  if (broken !== undefined) {
    const none: Usability = { usable: false, reason: broken.title };
    return { kvm: none, tcg: none, auto: undefined, reason: broken.title };
  }
  const kvm = judgeKvm(context, checks, problems);
  const missing = failed('qemu');
  const tcg: Usability = missing ? { usable: false, reason: missing.title } : { usable: true, reason: 'QEMU is here' };
  // A kernel can be given with each machine, so this alone stands in nobody's way.
  const but =
    failed('guest-kernel') === undefined ? '' : '; no guest kernel is found, so machines need the option kernel';
  if (kvm.usable) return { kvm, tcg, auto: 'kvm', reason: `${kvm.reason}${but}` };
  if (tcg.usable) return { kvm, tcg, auto: 'tcg', reason: `${kvm.reason}${but}` };
  return { kvm, tcg, auto: undefined, reason: `${kvm.reason}, and ${tcg.reason}` };
}

function judgeKvm({ kvmDevice, speed }: Context, checks: readonly Check[], problems: readonly Problem[]): Usability {
  const failure = checks.find(({ id, status }) => status === 'fail' && /^(kvm-|guest-speed$)/.test(id));
  if (speed?.ok && !runsKernelsNatively(speed.value)) {
    const slower = `${times(speed.value.ring0Ratio)} times slower`;
    return { usable: false, reason: `${kvmDevice} is there, but emulates guest kernel code (ring 0), ${slower}` };
  }
  if (failure !== undefined) {
    return {
      usable: false,
      reason: problems.find(({ check }) => check === failure.id)?.title ?? `${failure.label}: ${failure.value}`,
    };
  }
  if (!speed?.ok) return { usable: false, reason: `the speed of ${kvmDevice} is not known` };
  return { usable: true, reason: `${kvmDevice} runs guest kernels natively` };
}

/** The conclusion as checks. */
export function verdictFinding({ kvm, tcg, auto, reason }: Verdict): Finding {
  const own = (id: 'kvm' | 'tcg', { usable, reason: why }: Usability): Check => ({
    id: `accelerator-${id}`,
    label: id,
    status: usable ? 'pass' : auto === undefined ? 'fail' : 'warn',
    value: usable ? 'usable' : `not usable: ${why}`,
  });
  const choice: Finding =
    auto === undefined
      ? found('accelerator', 'auto', 'fail', `microVMs cannot run here: ${reason}`)
      : found(
          'accelerator',
          'auto',
          auto === 'kvm' ? 'pass' : 'warn',
          `takes ${auto}${auto === 'tcg' ? ' (slow)' : ''}: ${reason}`,
        );
  return { checks: [own('kvm', kvm), own('tcg', tcg), ...choice.checks], problems: [] };
}
