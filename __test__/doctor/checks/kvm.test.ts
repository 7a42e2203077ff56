// The checks of the processor and of KVM.

import test from 'ava';

import { checkCpuVirtualization } from '../../../src/doctor/checks/cpu-virtualization.ts';
import { checkGuestSpeed } from '../../../src/doctor/checks/guest-speed.ts';
import { checkKvmAccess } from '../../../src/doctor/checks/kvm-access.ts';
import { checkKvmApi } from '../../../src/doctor/checks/kvm-api.ts';
import { checkKvmCreate } from '../../../src/doctor/checks/kvm-create.ts';
import { checkKvmDevice } from '../../../src/doctor/checks/kvm-device.ts';
import { shellLine } from '../../../src/doctor/elevation.ts';
import { contextOf, healthyKvm, kvmNode, ok, refused } from '../../helpers/fake-host.ts';

const noFlag = { '/proc/cpuinfo': 'flags\t: fpu sse\n' };

test('the flag of the processor is shown', async (t) => {
  t.like(checkCpuVirtualization(await contextOf()).checks[0], { status: 'pass', value: 'vmx' });
  const amd = await contextOf({ texts: { '/proc/cpuinfo': 'flags : svm\n' } });
  t.like(checkCpuVirtualization(amd).checks[0], { status: 'pass', value: 'svm' });
});

test('a flag is a word, not a part of one', async (t) => {
  const context = await contextOf({
    texts: { '/proc/cpuinfo': 'flags : svm_lock xvmx\n' },
    nodes: { '/dev/kvm': 'ENOENT' },
  });
  t.is(checkCpuVirtualization(context).checks[0]?.status, 'fail');
});

test('no flag is a failure where there is no device', async (t) => {
  const { checks, problems } = checkCpuVirtualization(
    await contextOf({ texts: noFlag, nodes: { '/dev/kvm': 'ENOENT' } }),
  );
  t.like(checks[0], { status: 'fail', value: 'not found' });
  t.is(problems[0]?.title, 'CPU virtualization is not available');
  t.is(problems[0]?.causes[0], 'no vmx (Intel) or svm (AMD) flag in /proc/cpuinfo');
});

test('no flag is none where KVM opens and works', async (t) => {
  t.like(checkCpuVirtualization(await contextOf({ texts: noFlag })), { problems: [], checks: [{ status: 'info' }] });
});

test('no flag is none where the device is there and only access is missing', async (t) => {
  const context = await contextOf({ texts: noFlag, openErrors: { '/dev/kvm': 'EACCES' } });
  t.is(checkCpuVirtualization(context).checks[0]?.status, 'info');
});

test('arm64 has no such flag', async (t) => {
  t.deepEqual(checkCpuVirtualization(await contextOf({ arch: 'aarch64', texts: noFlag })).checks, []);
});

test('a device that is missing is told once, not as a matter of access too', async (t) => {
  const context = await contextOf({ nodes: { '/dev/kvm': 'ENOENT' } });
  t.like(checkKvmDevice(context).checks[0], { status: 'fail', value: 'missing' });
  t.deepEqual(checkKvmAccess(context), { checks: [], problems: [] });
});

test('a device that opens gives read and write', async (t) => {
  const context = await contextOf();
  t.like(checkKvmDevice(context).checks[0], { status: 'pass', value: '/dev/kvm' });
  t.like(checkKvmAccess(context).checks, [{ status: 'pass', value: 'read/write' }]);
});

for (const [errno, value] of [
  ['EACCES', 'permission denied'],
  ['EPERM', 'not permitted'],
  ['ENODEV', 'unavailable'],
] as const) {
  test(`${errno} is shown as ${value}`, async (t) => {
    const { checks, problems } = checkKvmAccess(await contextOf({ openErrors: { '/dev/kvm': errno } }));
    t.like(checks[0], { status: 'fail', value });
    t.is(problems.length, 1);
    t.is(problems[0]?.check, checks[0]?.id);
  });
}

const root = { uid: 0, gid: 0, groups: [0] };

for (const variable of ['SUDO_UID', 'PKEXEC_UID']) {
  test(`behind ${variable} it is the caller's access that matters`, async (t) => {
    const host = { identity: root, env: { [variable]: '1000' }, group: 'kvm:x:104:\n' };
    const { checks, problems } = checkKvmAccess(await contextOf(host));
    t.like(checks, [{ status: 'pass' }, { status: 'warn', label: '… for ann' }]);
    t.regex(problems[0]?.title ?? '', /not accessible by ann/);
    t.is(shellLine(problems[0]?.fixes[0]?.commands[0]?.argv ?? []), 'usermod -aG kvm ann');
  });
}

test('a caller of sudo who is in the group is well', async (t) => {
  const { checks, problems } = checkKvmAccess(await contextOf({ identity: root, env: { SUDO_UID: '1000' } }));
  t.like(checks[1], { status: 'pass' });
  t.deepEqual(problems, []);
});

for (const SUDO_UID of ['0', 'x', '4711']) {
  test(`SUDO_UID=${SUDO_UID} names nobody to ask about`, async (t) => {
    t.is(checkKvmAccess(await contextOf({ identity: root, env: { SUDO_UID } })).checks.length, 1);
  });
}

test('an ordinary user with SUDO_UID left over is asked about as himself', async (t) => {
  t.is(checkKvmAccess(await contextOf({ env: { SUDO_UID: '1' } })).checks.length, 1);
});

test('version and extensions of KVM are shown', async (t) => {
  t.like(checkKvmApi(await contextOf()).checks, [
    { status: 'pass', value: 'version 12' },
    {
      status: 'pass',
      value:
        'all that are needed: USER_MEMORY, IRQFD, IOEVENTFD, IMMEDIATE_EXIT, IRQCHIP, SET_TSS_ADDR, EXT_CPUID, MP_STATE, MAX_VCPUS',
    },
  ]);
});

test('arm64 needs others', async (t) => {
  t.regex(checkKvmApi(await contextOf({ arch: 'aarch64' })).checks[1]?.value ?? '', /IMMEDIATE_EXIT, DEVICE_CTRL$/);
});

test('extensions that are missing are named', async (t) => {
  const extensions = new Map(healthyKvm.extensions).set(32, 0).set(136, 0);
  const { checks, problems } = checkKvmApi(await contextOf({ kvm: () => ok({ ...healthyKvm, extensions }) }));
  t.like(checks[1], { status: 'fail', value: '2 missing' });
  t.is(problems[0]?.causes[0], 'missing: KVM_CAP_IRQFD, KVM_CAP_IMMEDIATE_EXIT');
});

test('an extension that only makes machines faster is a note', async (t) => {
  const extensions = new Map(healthyKvm.extensions).set(72, 0);
  const { checks, problems } = checkKvmApi(await contextOf({ kvm: () => ok({ ...healthyKvm, extensions }) }));
  t.like(checks[1], { status: 'info' });
  t.regex(checks[1]?.value ?? '', /without TSC_DEADLINE_TIMER/);
  t.deepEqual(problems, []);
});

test('another version of the API is told', async (t) => {
  const { checks, problems } = checkKvmApi(await contextOf({ kvm: () => refused('ERR_KVM_API_VERSION') }));
  t.is(checks[0]?.status, 'fail');
  t.regex(problems[0]?.causes[0] ?? '', /another version of the KVM API than 12/);
});

test('a device that is not KVM is told', async (t) => {
  const { problems } = checkKvmApi(await contextOf({ kvm: () => refused('ENODEV') }));
  t.regex(problems[0]?.causes[0] ?? '', /failed with ENODEV/);
});

test('without the addon nothing of KVM is claimed', async (t) => {
  const context = await contextOf({ kvm: () => undefined, guestSpeed: async () => undefined });
  for (const check of [checkKvmApi, checkKvmCreate, checkGuestSpeed]) t.deepEqual(check(context).checks, []);
});

const modules = { '/proc/modules': 'vboxnetflt 1 0 - Live\nvboxdrv 1 1 vboxnetflt, Live\nkvm 1 0 - Live\n' };

test('VirtualBox that holds the processor is named, with the modules that are loaded', async (t) => {
  const kvm = () => ok({ ...healthyKvm, createVm: refused('EBUSY') });
  const { checks, problems } = checkKvmCreate(await contextOf({ kvm, texts: modules }));
  t.like(checks[0], { status: 'fail', value: 'EBUSY' });
  t.regex(problems[0]?.causes[0] ?? '', /^VirtualBox holds/);
  const [command] = problems[0]?.fixes[0]?.commands ?? [];
  t.is(shellLine(command?.argv ?? []), 'modprobe -r vboxnetflt vboxdrv');
});

test('VMware that holds the processor is named too', async (t) => {
  const kvm = () => ok({ ...healthyKvm, createVm: refused('EBUSY') });
  const { problems } = checkKvmCreate(await contextOf({ kvm, texts: { '/proc/modules': 'vmmon 1 0 - Live\n' } }));
  t.regex(problems[0]?.causes[0] ?? '', /^VMware holds/);
  t.is(shellLine(problems[0]?.fixes[0]?.commands[0]?.argv ?? []), 'modprobe -r vmmon');
});

test('a holder of the processor that is not known is not guessed at', async (t) => {
  const kvm = () => ok({ ...healthyKvm, createVm: refused('EBUSY') });
  const { problems } = checkKvmCreate(await contextOf({ kvm }));
  t.regex(problems[0]?.causes[0] ?? '', /^another hypervisor holds/);
  t.deepEqual(problems[0]?.fixes[0]?.commands, []);
});

for (const [errno, cause] of [
  ['ENOMEM', /too little memory/],
  ['EMFILE', /too many files/],
  ['ENFILE', /too many files are open \(ENFILE\)/],
  ['EINVAL', /KVM_CREATE_VM failed with EINVAL/],
] as const) {
  test(`${errno} at the creation of a machine is explained`, async (t) => {
    const { problems } = checkKvmCreate(
      await contextOf({ kvm: () => ok({ ...healthyKvm, createVm: refused(errno) }) }),
    );
    t.regex(problems[0]?.causes[0] ?? '', cause);
  });
}

test('guests at the speed of the host pass, also where all is slow', async (t) => {
  for (const ring0Ratio of [1, 12]) {
    const context = await contextOf({ guestSpeed: async () => ok({ ring0Ratio, ring3Ratio: 1 }) });
    t.is(checkGuestSpeed(context).checks[0]?.status, 'pass');
  }
});

test('guest kernels that are emulated fail, with the factor', async (t) => {
  const context = await contextOf({ guestSpeed: async () => ok({ ring0Ratio: 2700.4, ring3Ratio: undefined }) });
  const { checks, problems } = checkGuestSpeed(context);
  t.like(checks[0], { status: 'fail', value: "emulated: kernel code 2,700 times the host's time" });
  t.is(problems[0]?.id, 'kvm-emulated');
});

test('a speed that cannot be measured is told with its errno', async (t) => {
  const context = await contextOf({ guestSpeed: async () => refused('EINVAL') });
  t.like(checkGuestSpeed(context).checks[0], { status: 'fail', value: 'cannot be measured (EINVAL)' });
});

test('another mode of the node changes nothing where it opens', async (t) => {
  t.is(checkKvmAccess(await contextOf({ nodes: { '/dev/kvm': kvmNode({ mode: 0 }) } })).checks[0]?.status, 'pass');
});
