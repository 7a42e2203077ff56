// This machine, whatever it is: the doctor, the probe and the choice of an accelerator agree.

import test from 'ava';

import { chooseAccelerator } from '../../src/accelerators/choose.ts';
import { doctor } from '../../src/doctor/doctor.ts';
import { inspectAll } from '../../src/doctor/inspect-all.ts';
import { guestSpeed, runsKernelsNatively } from '../../src/host/guest-speed.ts';
import { loadBinding, packageVersion } from '../../src/native.ts';

const host = inspectAll();
const opens = host.open('/dev/kvm').ok;
const withKvm = opens ? test : test.skip;
if (!opens) test('questions to KVM are skipped', (t) => t.log('there is no KVM device that opens'));

test('auto takes what the doctor says that it takes', async (t) => {
  const { verdict } = await doctor();
  const { accelerator } = await chooseAccelerator({ accelerator: 'auto', kvmDevice: '/dev/kvm', hugePages: false });
  // Without QEMU, which the choice does not ask about, the doctor has nothing to take.
  t.is(verdict.auto ?? 'tcg', accelerator.name);
});

withKvm('guest speed is that of the probe: emulated kernels fail, native ones pass', async (t) => {
  const speed = await guestSpeed('/dev/kvm');
  const { sections, verdict } = await doctor();
  const check = sections.flatMap(({ checks }) => checks).find(({ id }) => id === 'guest-speed');
  const native = runsKernelsNatively(speed);
  t.is(check?.status, native ? 'pass' : 'fail');
  t.regex(check?.value ?? '', native ? /^native/ : /^emulated: kernel code [\d,]+ times/);
  t.is(verdict.kvm.usable, native);
});

withKvm('KVM is asked for real', (t) => {
  const answers = host.kvm('/dev/kvm', [3, 4096]);
  t.true(answers?.ok);
  if (answers?.ok !== true) return;
  t.is(answers.value.apiVersion, 12);
  t.is(answers.value.extensions.get(3), 1, 'KVM_CAP_USER_MEMORY is in every KVM');
  t.is(answers.value.extensions.get(4096), 0, 'no such extension');
  t.true(answers.value.createVm.ok);
});

test('refusals have the names of their errno', (t) => {
  t.deepEqual(host.stat('/no/such/file'), { ok: false, errno: 'ENOENT' });
  t.deepEqual(host.readText('/'), { ok: false, errno: 'EISDIR' });
  t.deepEqual(host.open('/no/such/file'), { ok: false, errno: 'ENOENT' });
  t.deepEqual(host.kvm('/no/such/device', []), { ok: false, errno: 'ENOENT' });
  t.deepEqual(host.kvm('/dev/null', []), { ok: false, errno: 'ERR_KVM_NOT_A_DEVICE' });
  t.deepEqual(host.tryVsockCid('/dev/null', 3), { ok: false, errno: 'ENOTTY' });
});

test('files are told apart by their kind', (t) => {
  const kinds = ['/dev/null', '/etc/passwd', '/'].map((path) => {
    const facts = host.stat(path);
    return facts.ok ? facts.value.kind : facts.errno;
  });
  t.deepEqual(kinds, ['character device', 'file', 'folder']);
  t.is(host.acl('/etc/passwd'), undefined);
  t.is(host.acl('/no/such/file'), 'unknown');
});

test('programs are found in the PATH, and only where they can be run', async (t) => {
  t.regex(host.program('sh') ?? '', /\/sh$/);
  t.is(host.program('no-such-program'), undefined);
  t.is(host.program('/etc/passwd'), undefined);
  t.deepEqual(await host.run(['sh', '-c', 'echo out; exit 3']), { code: 3, stdout: 'out\n' });
  t.is(await host.run(['/no/such/program']), undefined);
});

test('the addon is of the version of the package', (t) => {
  t.is(loadBinding().addonVersion(), packageVersion());
});
