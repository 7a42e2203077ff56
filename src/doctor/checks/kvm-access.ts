// Whether the KVM device may be opened: by this process, and by whoever called sudo to run it.

import type { Context } from '../context.ts';
import { type Finding, found, together } from '../model.ts';
import { permissionProblem, wouldBeGranted } from '../kvm/permission.ts';
import { deviceProblem } from '../kvm/problems.ts';

const [ID, LABEL] = ['kvm-access', 'KVM access'] as const;

export function checkKvmAccess(context: Context): Finding {
  const { host, kvmDevice, device } = context;
  switch (device.state) {
    case 'usable':
      return together(found(ID, LABEL, 'pass', 'read/write'), checkCaller(context));
    case 'refused':
    case 'forbidden':
    case 'unavailable': {
      const problem = deviceProblem(host, kvmDevice, device);
      const words = { refused: 'permission denied', forbidden: 'not permitted', unavailable: 'unavailable' };
      return { ...found(ID, LABEL, 'fail', words[device.state]), problems: problem ? [problem] : [] };
    }
    // The check of the device tells.
    default:
      return { checks: [], problems: [] };
  }
}

/** Root may open anything; what matters is the person who will run machines without sudo. */
function checkCaller({ host, kvmDevice, device, caller }: Context): Finding {
  if (caller === undefined || device.state !== 'usable') return { checks: [], problems: [] };
  const label = `… for ${caller.account.name}`;
  const granted = wouldBeGranted(host, kvmDevice, device.facts, caller);
  if (granted === undefined) return found('kvm-access-caller', label, 'info', 'cannot be told without the addon');
  if (granted) return found('kvm-access-caller', label, 'pass', 'read/write after a new login');
  const problem = permissionProblem(host, kvmDevice, device.facts, caller);
  return {
    ...found('kvm-access-caller', label, 'warn', 'permission denied without sudo'),
    problems: [{ ...problem, check: 'kvm-access-caller' }],
  };
}
