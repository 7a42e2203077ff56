// QEMU.

import test from 'ava';

import type { Fix } from '../../../src/doctor/model.ts';
import { checkQemu } from '../../../src/doctor/checks/qemu.ts';
import { says } from '../../helpers/says.ts';
import { fakeHost } from '../../helpers/fake-host.ts';

test('QEMU is shown with its version', says, checkQemu, {}, 'qemu', 'pass', '8.2.1 (/usr/bin/qemu-system-x86_64)');

test(
  'QEMU that is missing is a warning',
  says,
  checkQemu,
  { programs: { 'qemu-system-x86_64': '' } },
  'qemu',
  'warn',
  'not found',
);

test(
  'QEMU that is too old is told',
  says,
  checkQemu,
  { run: async () => ({ code: 0, stdout: 'QEMU emulator version 5.2.0 (Debian)' }) },
  'qemu',
  'warn',
  '5.2.0, too old',
);

test('QEMU that does not run is told', says, checkQemu, { run: async () => undefined }, 'qemu', 'warn', 'does not run');

test(
  'QEMU that fails is told',
  says,
  checkQemu,
  { run: async () => ({ code: 1, stdout: '' }) },
  'qemu',
  'warn',
  'does not run',
);

test(
  'QEMU is the one that the environment names',
  says,
  checkQemu,
  { env: { MICROVM_QEMU: 'my-qemu' }, programs: { 'my-qemu': '/opt/qemu' } },
  'qemu',
  'pass',
  '8.2.1 (/opt/qemu)',
);

test('Enterprise Linux, whose QEMU leaves too much out, is given no command that would not help', async (t) => {
  const programs = { 'qemu-system-x86_64': '', 'apt-get': '', dnf: '/usr/bin/dnf' };
  const fixesOn = async (release: string): Promise<readonly Fix[] | undefined> => {
    const { problems } = await checkQemu({ host: fakeHost({ programs, texts: { '/etc/os-release': release } }) });
    return problems[0]?.fixes;
  };
  for (const release of ['ID="rhel"\n', 'NAME=Rocky\nID="rocky"\nID_LIKE="rhel centos fedora"\n']) {
    const [only, ...others] = (await fixesOn(release)) ?? [];
    t.deepEqual(others, []);
    t.deepEqual(only?.commands, []);
    t.regex(only?.description ?? '', /build QEMU/);
  }
  t.is((await fixesOn('ID=fedora\n'))?.[0]?.commands.length, 1);
});

test('QEMU is installed by the installer that is there', async (t) => {
  const { problems } = await checkQemu({
    host: fakeHost({ programs: { 'qemu-system-x86_64': '', 'apt-get': '', dnf: '/usr/bin/dnf' } }),
  });
  t.deepEqual(problems[0]?.fixes[0]?.commands, [
    { argv: ['dnf', 'install', '-y', 'qemu-system-x86-core'], sudo: true },
  ]);
});
