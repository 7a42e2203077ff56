// The doctor where KVM runs guests natively: nothing is wrong.

import test from 'ava';

import { doctor } from '../../../src/doctor/doctor.ts';
import { microvm } from '../../helpers/behaviours/command-line.ts';

test.serial('all is green, with kvm', async (t) => {
  const { ok, verdict, sections } = await doctor({ accelerator: 'kvm' });
  const bad = sections.flatMap(({ checks }) => checks.filter(({ status }) => status === 'warn' || status === 'fail'));
  t.deepEqual(bad, []);
  t.deepEqual(
    sections.flatMap(({ problems }) => problems),
    [],
  );
  t.true(ok);
  t.is(verdict.auto, 'kvm');
  t.regex(sections.flatMap(({ checks }) => checks).find(({ id }) => id === 'guest-speed')?.value ?? '', /^native/);
});

test.serial('--quiet has nothing to say, and ends with 0', async (t) => {
  t.deepEqual(await microvm(['doctor', '--accelerator', 'kvm', '--quiet']), { stdout: '', stderr: '', exitCode: 0 });
});
