// `microvm doctor` on this machine, whatever it is like.

import test from 'ava';

import type { DoctorReport } from '../../src/doctor/doctor.ts';
import { microvm } from '../helpers/behaviours/command-line.ts';

const refuses = test.macro<[args: readonly string[], pattern: RegExp]>({
  exec: async (t, args, pattern) => {
    const { stdout, stderr, exitCode } = await microvm(['doctor', ...args]);
    t.is(exitCode, 2);
    t.is(stdout, '');
    t.regex(stderr, pattern);
    t.notRegex(stderr, /\n\s+at /);
  },
  title: (_, args) => `microvm doctor ${args?.join(' ')} is refused with 2`,
});

test.serial(refuses, ['--jsno'], /Unknown option --jsno[^]*--json/);
test.serial(refuses, ['kvm'], /Unexpected word 'kvm'/);
test.serial(refuses, ['--yes'], /--yes goes with --fix/);
test.serial(refuses, ['--accelerator', 'hvf'], /--accelerator takes auto, kvm or tcg, not 'hvf'/);
test.serial(refuses, ['--accelerator'], /needs a value/);

test.serial('--json gives the report, and the exit code is its verdict', async (t) => {
  const { stdout, stderr, exitCode } = await microvm(['doctor', '--json']);
  const report = JSON.parse(stdout) as DoctorReport;
  t.is(stderr, '');
  t.is(report.version, 1);
  t.is(exitCode, report.ok ? 0 : 1);
  t.is(report.ok, report.verdict.auto !== undefined);
  t.true(report.sections.length >= 9);
});

for (const accelerator of ['kvm', 'tcg'] as const) {
  test.serial(`--accelerator ${accelerator} asks for that one`, async (t) => {
    const { stdout, exitCode } = await microvm(['doctor', '--json', '--accelerator', accelerator]);
    const report = JSON.parse(stdout) as DoctorReport;
    t.is(exitCode, report.verdict[accelerator].usable ? 0 : 1);
    t.is(report.accelerator, accelerator);
  });
}

test.serial('what is printed into a pipe is plain', async (t) => {
  const { stdout } = await microvm(['doctor']);
  // oxlint-disable-next-line no-control-regex
  t.notRegex(stdout, /\x1b|[✓✗]/);
  t.regex(stdout, /^Package\n {2}\[info\] Package +@hybrid\/microvm /);
  t.regex(stdout, /^Accelerator$/m);
});

test.serial('--quiet leaves out what is well', async (t) => {
  const { stdout } = await microvm(['doctor', '--quiet']);
  t.notRegex(stdout, /\[(pass|info)\]/);
});

test.serial('tcg without QEMU is an exit code of 1', async (t) => {
  process.env['MICROVM_QEMU'] = '/no/such/qemu';
  t.teardown(() => delete process.env['MICROVM_QEMU']);
  const { stdout, exitCode } = await microvm(['doctor', '--accelerator', 'tcg', '--quiet']);
  t.is(exitCode, 1);
  t.regex(stdout, /microVMs cannot run here by tcg: \/no\/such\/qemu was not found/);
});
