// What a failing start says a person can do: the first fix of the first problem, in one line.

import { typedLine } from '../elevation.ts';
import { inspectHost } from '../inspect-host.ts';
import type { Host } from '../host.ts';
import type { Problem } from '../model.ts';
import { examineDevice } from './device.ts';
import { deviceProblem } from './problems.ts';

/** Codes of failures that a look at the device explains. */
const OF_THE_DEVICE: ReadonlySet<string> = new Set(['ERR_KVM_MISSING', 'ERR_KVM_PERMISSION']);

/** What to do about a failure of the KVM device; undefined for codes of other failures. */
export function kvmHint(code: string, device = '/dev/kvm', host: Host = inspectHost()): string | undefined {
  if (OF_THE_DEVICE.has(code)) {
    const problem = deviceProblem(host, device, examineDevice(host, device));
    return problem && problemHint(problem, host);
  }
  if (code === 'ERR_KVM_NOT_A_DEVICE') return 'Give the path of the KVM character device, by default /dev/kvm.';
  if (code === 'ERR_KVM_API_VERSION') {
    return 'The kernel is too old or too new for this package; every Linux since 2.6.22 speaks version 12.';
  }
  return undefined;
}

/** A problem's cause and its first fix, for the `hint` of an error. */
export function problemHint({ causes, fixes }: Problem, host: Host): string {
  const cause = sentence(causes[0] ?? '');
  const [first] = fixes;
  if (first === undefined) return `${cause} 'microvm doctor' tells more.`;
  const lines = first.commands.map((command) => typedLine(command, host));
  const relogin = first.needsRelogin ? ', then log in again' : '';
  const what = lines.length === 0 ? first.description : `${first.description}: ${lines.join(' && ')}${relogin}`;
  return `${cause} To mend it: ${what}`;
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
