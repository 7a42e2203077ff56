// QEMU, which the accelerator tcg runs.

import { OLDEST_QEMU, qemuProgram } from '../../host/qemu.ts';
import type { Context } from '../context.ts';
import type { DoctorHost } from '../host.ts';
import { type Finding, type Fix, fix, found, type Problem } from '../model.ts';
import { installCommands, isEnterpriseLinux } from '../packages.ts';

const [ID, LABEL] = ['qemu', 'QEMU'] as const;

export async function checkQemu({ host }: Pick<Context, 'host'>): Promise<Finding> {
  const name = qemuProgram(host.env);
  const program = host.program(name);
  if (program === undefined) {
    const where = host.env['MICROVM_QEMU'] ? 'named in MICROVM_QEMU, but not there' : 'not in the PATH';
    return bad('not found', {
      id: 'qemu-missing',
      title: `${name} was not found`,
      causes: [`it is ${where}; the accelerator tcg needs it`],
      fixes: installFixes(host, 'install QEMU, or name it in MICROVM_QEMU'),
    });
  }
  const ran = await host.run([program, '--version']);
  const version = /version (\d+)\.(\d+)[\d.]*/.exec(ran?.stdout ?? '');
  if (ran?.code !== 0 || version === null) {
    return bad('does not run', {
      id: 'qemu-broken',
      title: `${program} does not tell its version`,
      causes: [ran === undefined ? 'it cannot be run' : `it ended with ${ran.code ?? 'a signal'}`],
      fixes: installFixes(host, 'install QEMU anew'),
    });
  }
  const number = version[0].replace('version ', '');
  if (Number(version[1]) < OLDEST_QEMU) {
    return bad(`${number}, too old`, {
      id: 'qemu-too-old',
      title: `${program} is too old`,
      causes: [`the accelerator tcg needs version ${OLDEST_QEMU} or newer, this is ${number}`],
      fixes: [fix(`install QEMU ${OLDEST_QEMU} or newer, or name another one in MICROVM_QEMU`)],
    });
  }
  return found(ID, LABEL, 'pass', `${number} (${program})`);
}

function installFixes(host: DoctorHost, description: string): Fix[] {
  // Its qemu-kvm is built without most devices, and no package has the whole.
  if (isEnterpriseLinux(host)) {
    return [fix(`${description}; this distribution's qemu-kvm leaves out devices that machines need, so build QEMU`)];
  }
  const commands = installCommands(host, 'qemu-system-x86');
  return [commands.length === 0 ? fix(`${description} (Debian: qemu-system-x86)`) : fix(description, ...commands)];
}

function bad(value: string, problem: Omit<Problem, 'check'>): Finding {
  return { ...found(ID, LABEL, 'warn', value), problems: [{ ...problem, check: ID }] };
}
