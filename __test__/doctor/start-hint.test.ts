// What failing starts say a person can do.

import test from 'ava';

import { withStartHint } from '../../src/doctor/start-hint.ts';
import { MicroVM, MicroVMError, type MicroVMErrorCode } from '../../index.ts';
import { ANN, type FakeHost, fakeHost, healthyKvm, kvmNode, ok, refused } from '../helpers/fake-host.ts';

const hints = test.macro<[MicroVMErrorCode, FakeHost, RegExp]>(async (t, code, different, pattern) => {
  const error = new MicroVMError(code, 'It failed', { consoleTail: 'tail' });
  const hinted = await withStartHint(error, '/dev/kvm', fakeHost(different));
  t.true(hinted instanceof MicroVMError);
  t.like(hinted, { code, message: 'It failed', consoleTail: 'tail', stack: error.stack });
  t.regex((hinted as MicroVMError).hint ?? '', pattern);
});

const unopened: FakeHost = { identity: ANN, openErrors: { '/dev/kvm': 'EACCES' }, group: 'kvm:x:104:\n' };
test(
  'a refusal tells the commands, and the new login',
  hints,
  'ERR_KVM_PERMISSION',
  unopened,
  /^\/dev\/kvm is owned by group 'kvm', which your user is not in\. To mend it: add ann .*: sudo usermod -aG kvm ann && sudo setfacl -m u:ann:rw \/dev\/kvm, then log in again$/,
);
test(
  'a missing device tells the module',
  hints,
  'ERR_KVM_MISSING',
  { nodes: { '/dev/kvm': 'ENOENT' } },
  /To mend it: load the kvm_intel kernel module: sudo modprobe kvm_intel$/,
);
test(
  'a call that failed since VirtualBox holds the processor says so',
  hints,
  'ERR_KVM_FAILED',
  {
    kvm: () => ok({ ...healthyKvm, createVm: refused('EBUSY') }),
    texts: { '/proc/modules': 'vboxdrv 1 0 - Live\n' },
  },
  /^VirtualBox holds .* modprobe -r vboxdrv$/,
);
test(
  'a call that failed on a full host tells of memory',
  hints,
  'ERR_KVM_FAILED',
  {
    texts: { '/proc/meminfo': 'MemAvailable: 1000 kB\n' },
  },
  /less memory free/,
);
test(
  'QEMU that is missing is installed',
  hints,
  'ERR_QEMU_MISSING',
  { programs: { 'qemu-system-x86_64': '' } },
  /: sudo apt-get update && sudo apt-get install -y qemu-system-x86$/,
);
test(
  'a missing vhost-vsock device tells the module, and how to do without',
  hints,
  'ERR_VHOST_VSOCK_MISSING',
  {},
  /^The kernel module vhost_vsock is not loaded\. To mend it: load the vhost_vsock kernel module: sudo modprobe vhost_vsock$/,
);
test(
  'a vhost-vsock device that a container lacks is passed in',
  hints,
  'ERR_VHOST_VSOCK_MISSING',
  { nodes: { '/.dockerenv': kvmNode({ kind: 'file' }) } },
  /container \(docker\).*--device \/dev\/vhost-vsock/,
);
test(
  'a vhost-vsock device of somebody else tells the command',
  hints,
  'ERR_VHOST_VSOCK_PERMISSION',
  { nodes: { '/dev/vhost-vsock': kvmNode() }, openErrors: { '/dev/vhost-vsock': 'EACCES' } },
  /may not be opened by ann\. To mend it: .*: sudo setfacl -m u:ann:rw \/dev\/vhost-vsock$/,
);
test(
  'a vhost-vsock device that a control group forbids is told from one of somebody else',
  hints,
  'ERR_VHOST_VSOCK_PERMISSION',
  { nodes: { '/dev/vhost-vsock': kvmNode() }, openErrors: { '/dev/vhost-vsock': 'EPERM' } },
  /^The device cgroup of this process/,
);
test(
  'a vhost-vsock device that fails otherwise says how to do without',
  hints,
  'ERR_VHOST_VSOCK_FAILED',
  { nodes: { '/dev/vhost-vsock': kvmNode() }, openErrors: { '/dev/vhost-vsock': 'EMFILE' } },
  /failed with EMFILE\. To mend it: leave out vsock/,
);
test(
  'a problem without a way out leads to the doctor',
  hints,
  'ERR_KVM_FAILED',
  {
    openErrors: { '/dev/kvm': 'ENODEV' },
  },
  /^Opening \/dev\/kvm failed with ENODEV\. 'microvm doctor' tells more\.$/,
);

test('a hint that is there, an error of another kind, and a healthy host change nothing', async (t) => {
  const host = fakeHost();
  const errors = [
    new MicroVMError('ERR_KVM_MISSING', 'x', { hint: 'Mine' }),
    new MicroVMError('ERR_INVALID_OPTIONS', 'x'),
    new MicroVMError('ERR_KVM_FAILED', 'x'),
    new Error('x'),
  ];
  for (const error of errors) t.is(await withStartHint(error, '/dev/kvm', host), error);
});

test('a diagnosis that fails leaves the error as it is', async (t) => {
  const error = new MicroVMError('ERR_KVM_FAILED', 'x');
  const host = fakeHost({
    kvm: () => {
      throw new Error('broken');
    },
  });
  t.is(await withStartHint(error, '/dev/kvm', host), error);
});

test.serial('a start without QEMU says what to install', async (t) => {
  process.env['MICROVM_QEMU'] = '/no/such/qemu';
  t.teardown(() => delete process.env['MICROVM_QEMU']);
  const error = await t.throwsAsync(MicroVM.create({ accelerator: 'tcg' }), { instanceOf: MicroVMError });
  t.is(error.code, 'ERR_QEMU_MISSING');
  t.regex(error.hint ?? '', /named in MICROVM_QEMU, but not there.*To mend it: install QEMU/);
});
