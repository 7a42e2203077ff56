import { execFileSync } from 'node:child_process';
import test from 'ava';

import { elevate, elevationOf, shellLine, typedLine } from '../../src/doctor/elevation.ts';
import { asRoot } from '../../src/doctor/model.ts';
import { ANN } from '../helpers/fake-host.ts';

const COMMAND = asRoot('usermod', '-aG', 'kvm', 'ann lee');

function hostWith(programs: readonly string[], uid = 1000): Parameters<typeof typedLine>[1] {
  const program = (name: string): string | undefined => (programs.includes(name) ? `/sbin/${name}` : undefined);
  return { identity: { ...ANN, uid }, program };
}

for (const [what, host, line] of [
  ['sudo before it where there is sudo', hostWith(['su', 'pkexec', 'sudo']), "sudo usermod -aG kvm 'ann lee'"],
  ['pkexec where that is what there is', hostWith(['su', 'pkexec']), "pkexec usermod -aG kvm 'ann lee'"],
  ['its path behind pkexec', hostWith(['pkexec', 'usermod']), "pkexec /sbin/usermod -aG kvm 'ann lee'"],
  ['su around it at the last', hostWith(['su']), String.raw`su -c 'usermod -aG kvm '\''ann lee'\'''`],
  ['sudo where there is nothing at all', hostWith([]), "sudo usermod -aG kvm 'ann lee'"],
  ['nothing for root', hostWith(['sudo'], 0), "usermod -aG kvm 'ann lee'"],
] as const) {
  test(`a command that takes root has ${what}`, (t) => t.is(typedLine(COMMAND, host), line));
}

test('a command that does not take root stays as it is', (t) => {
  t.is(typedLine({ argv: ['id'], sudo: false }, hostWith(['sudo'])), 'id');
});

test('an ordinary user without any of the programs has no way', (t) => t.is(elevationOf(hostWith([])), undefined));

test('what su is given is the command, word for word', (t) => {
  const argv = ['printf', '%s|', "it's", '$(x)', 'a b', ''];
  const [, , line = ''] = elevate({ argv, sudo: true }, 'su', hostWith([]));
  t.is(execFileSync('sh', ['-c', line], { encoding: 'utf8' }), "it's|$(x)|a b||");
  t.is(execFileSync('sh', ['-c', shellLine(argv)], { encoding: 'utf8' }), "it's|$(x)|a b||");
});
