// The whole diagnosis of made-up hosts.

import test from 'ava';

import { diagnose, doctor } from '../../src/doctor/doctor.ts';
import type { Check } from '../../src/doctor/model.ts';
import { type FakeHost, fakeHost, ok } from '../helpers/fake-host.ts';

const statusesOf = (checks: readonly Check[]): string[] => checks.map(({ status }) => status);

test('a healthy host has no warning, no problem, and takes kvm', async (t) => {
  const report = await diagnose(fakeHost());
  t.like(report, { version: 1, packageVersion: '1.2.3', ok: true, accelerator: 'auto' });
  t.like(report.verdict, { auto: 'kvm', kvm: { usable: true }, tcg: { usable: true } });
  for (const { title, checks, problems } of report.sections) {
    t.deepEqual(problems, [], title);
    t.false(
      statusesOf(checks).some((status) => status === 'warn' || status === 'fail'),
      title,
    );
  }
});

test('names of checks are unique, and each problem names one of them', async (t) => {
  const broken = { openErrors: { '/dev/kvm': 'EACCES' }, programs: { 'qemu-system-x86_64': '' } };
  const { sections } = await diagnose(fakeHost(broken));
  const ids = sections.flatMap(({ checks }) => checks.map(({ id }) => id));
  t.is(new Set(ids).size, ids.length);
  for (const problem of sections.flatMap(({ problems }) => problems))
    t.true(ids.includes(problem.check), problem.check);
});

test('a report is plain data', async (t) => {
  const report = await diagnose(fakeHost({ nodes: { '/dev/kvm': 'ENOENT' } }));
  t.deepEqual(JSON.parse(JSON.stringify(report)), report);
});

test('where guest kernels are emulated, auto takes tcg and says why', async (t) => {
  const guestSpeed = async () => ok({ ring0Ratio: 1000, ring3Ratio: 1 });
  const report = await diagnose(fakeHost({ guestSpeed }));
  t.true(report.ok);
  t.is(report.verdict.auto, 'tcg');
  t.regex(report.verdict.reason, /\/dev\/kvm is there, but emulates guest kernel code \(ring 0\), 1,000 times slower/);
  t.like(report.sections.at(-1)?.checks, [
    { id: 'accelerator-kvm', status: 'warn' },
    { id: 'accelerator-tcg', status: 'pass' },
    { id: 'accelerator', status: 'warn' },
  ]);
});

const emulated: FakeHost = { guestSpeed: async () => ok({ ring0Ratio: 1000, ring3Ratio: 1 }) };
const noQemu: FakeHost = { programs: { 'qemu-system-x86_64': '' } };
const noAddon: FakeHost = {
  packageFacts: () => ({
    version: '1.2.3',
    platform: 'linux-x64-gnu',
    addon: { loaded: false, message: 'There is no native addon for linux-x64-gnu', hint: 'Install it' },
    agent: undefined,
  }),
  kvm: () => undefined,
  guestSpeed: async () => undefined,
  tryInterface: () => undefined,
  tryVsockCid: () => undefined,
};

const outcome = test.macro<[FakeHost, 'auto' | 'kvm' | 'tcg', boolean, RegExp]>(
  async (t, different, accelerator, expected, reason) => {
    const report = await diagnose(fakeHost(different), { accelerator });
    t.is(report.ok, expected);
    t.regex(accelerator === 'auto' ? report.verdict.reason : report.verdict[accelerator].reason, reason);
  },
);

test('kvm that emulates is not what was asked for with kvm', outcome, emulated, 'kvm', false, /emulates/);
test('kvm that is healthy is', outcome, {}, 'kvm', true, /natively/);
test('tcg is there whatever KVM does', outcome, emulated, 'tcg', true, /QEMU/);
test('tcg is not there without QEMU', outcome, noQemu, 'tcg', false, /was not found/);
test('kvm alone is enough for auto', outcome, noQemu, 'auto', true, /natively/);
test(
  'with neither, microVMs cannot run',
  outcome,
  { ...noQemu, ...emulated },
  'auto',
  false,
  /emulates.*, and qemu-system/,
);
test(
  'a machine that cannot be created rules kvm out',
  outcome,
  {
    kvm: () => ok({ apiVersion: 12, extensions: new Map(), createVm: ok(undefined) }),
  },
  'kvm',
  false,
  /lacks what machines need/,
);
test('without the addon nothing runs', outcome, noAddon, 'auto', false, /native addon cannot be used/);
test(
  'a missing guest agent rules both out',
  outcome,
  {
    packageFacts: () => ({ ...fakeHost().packageFacts(), agent: undefined }),
  },
  'auto',
  false,
  /guest agent is missing/,
);

test('the addon is the first finding where it is missing, and the rest is looked at all the same', async (t) => {
  const { sections } = await diagnose(fakeHost(noAddon));
  const problems = sections.flatMap((section) => section.problems);
  t.is(problems[0]?.id, 'addon-missing');
  t.is(problems[0]?.fixes[0]?.description, 'Install it');
  t.like(sections.find(({ title }) => title === 'KVM')?.checks, [
    { id: 'kvm-device' },
    { id: 'kvm-access', status: 'pass' },
  ]);
});

test('an addon of another version is told', async (t) => {
  const facts = fakeHost().packageFacts();
  const packageFacts = () => ({ ...facts, addon: { loaded: true, file: '/a.node', version: '1.0.0' } as const });
  const { sections, ok: isOk } = await diagnose(fakeHost({ packageFacts }));
  t.false(isOk);
  t.regex(sections[0]?.problems[0]?.causes[0] ?? '', /built as 1\.0\.0, the package is 1\.2\.3/);
});

test('options that are wrong are refused', async (t) => {
  await t.throwsAsync(doctor({ accelerator: 'hvf' as 'kvm' }), { code: 'ERR_INVALID_OPTIONS', message: /hvf/ });
  await t.throwsAsync(doctor({ kvmDevice: 'kvm' }), { code: 'ERR_INVALID_OPTIONS', message: /absolute path/ });
});
