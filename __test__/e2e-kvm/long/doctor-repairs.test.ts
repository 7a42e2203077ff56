// Hosts without the device that are no containers: the commands that the doctor prints there are run, and mend them.
// In the lab alone, whose machine is thrown away: elsewhere this would take the device from everybody.

import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import test from 'ava';

import { doctor } from '../../../src/doctor/doctor.ts';
import { shellLine } from '../../../src/doctor/elevation.ts';
import { checkOf, kvmProblems, type Patient, treat } from '../../helpers/patient.ts';

const inLab = process.env['MICROVM_LAB'] === '1';
const onlyInLab = inLab ? test.serial : test.skip;
if (!inLab) test('repairs of the device are skipped', (t) => t.log('they need the machine of the lab'));

// The machine shows the files of the one that it runs on, which may be a container; it is none itself.
if (inLab) for (const mark of ['/.dockerenv', '/run/.containerenv']) rmSync(mark, { force: true });

const mended = test.macro<[Patient, RegExp]>(async (t, patient, cause) => {
  const { before, ran, after } = await treat(patient);
  t.regex(kvmProblems(before)[0]?.causes[0] ?? '', cause);
  t.true(ran.length > 0);
  for (const { status, stderr } of ran) t.is(status, 0, stderr);
  t.deepEqual(kvmProblems(after), []);
  t.is(checkOf(after, 'kvm-access')?.status, 'pass');
});

onlyInLab('a device that /dev lacks is put in its place', mended, { device: ':' }, /\/dev here lacks it/);
onlyInLab('a regular file gives way to the device', mended, { device: 'touch kvm' }, /it is a file/);

onlyInLab('a module that is not loaded is loaded', async (t) => {
  t.is(spawnSync('modprobe', ['-r', 'kvm_amd']).status, 0);
  const report = await doctor({ accelerator: 'kvm' });
  t.false(report.ok);
  const [problem] = kvmProblems({ report, failure: undefined });
  t.regex(problem?.causes[0] ?? '', /module is not loaded/);
  const lines = problem?.fixes.flatMap(({ commands }) => commands.map(({ argv }) => shellLine(argv)));
  t.deepEqual(lines, ['modprobe kvm_amd']);
  for (const line of lines ?? []) t.is(spawnSync('sh', ['-c', line]).status, 0);
  t.true((await doctor({ accelerator: 'kvm' })).ok);
});
