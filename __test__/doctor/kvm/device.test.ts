// The states of the device, with the problem that each is told as.

import test from 'ava';

import { examineDevice } from '../../../src/doctor/kvm/device.ts';
import { deviceError } from '../../../src/doctor/kvm/errors.ts';
import { deviceProblem } from '../../../src/doctor/kvm/problems.ts';
import { shellLine } from '../../../src/doctor/elevation.ts';
import { type FakeHost, fakeHost, kvmNode } from '../../helpers/fake-host.ts';

interface Expected {
  readonly state: string;
  readonly code: string;
  readonly cause: RegExp;
  readonly fix?: RegExp;
  readonly commands?: readonly string[];
}

const told = test.macro<[FakeHost, Expected]>((t, different, { state, code, cause, fix, commands = [] }) => {
  const host = fakeHost(different);
  const examined = examineDevice(host, '/dev/kvm');
  t.is(examined.state, state as typeof examined.state);
  const problem = deviceProblem(host, '/dev/kvm', examined);
  t.regex(problem?.causes[0] ?? '', cause);
  if (fix) t.regex(problem?.fixes[0]?.description ?? '', fix);
  else t.deepEqual(problem?.fixes, []);
  const lines = problem?.fixes.flatMap((each) => each.commands.map((command) => shellLine(command.argv)));
  t.deepEqual(lines, [...commands]);
  const error = deviceError(host, '/dev/kvm', examined);
  t.is(error?.code, code as NonNullable<typeof error>['code']);
  t.truthy(error?.hint);
});

const missing = { '/dev/kvm': 'ENOENT' };
const cpu = (flag: string): Record<string, string> => ({ '/proc/cpuinfo': `flags\t: fpu ${flag} sse\n` });

test(
  'a missing device on Intel names kvm_intel',
  told,
  { nodes: missing },
  {
    state: 'missing',
    code: 'ERR_KVM_MISSING',
    cause: /module is not loaded/,
    fix: /load the kvm_intel kernel module/,
    commands: ['modprobe kvm_intel'],
  },
);

test(
  'a missing device on AMD names kvm_amd',
  told,
  { nodes: missing, texts: cpu('svm') },
  {
    state: 'missing',
    code: 'ERR_KVM_MISSING',
    cause: /module is not loaded/,
    fix: /kvm_amd/,
    commands: ['modprobe kvm_amd'],
  },
);

test(
  'a missing device without virtualization is the firmware, not a module',
  told,
  { nodes: missing, texts: cpu('') },
  {
    state: 'missing',
    code: 'ERR_KVM_MISSING',
    cause: /processor shows no virtualization/,
    fix: /BIOS or UEFI/,
  },
);

test(
  "a missing device without virtualization in a virtual machine is its host's to give",
  told,
  {
    nodes: missing,
    texts: { ...cpu('hypervisor'), '/sys/class/dmi/id/sys_vendor': 'Google\n' },
  },
  {
    state: 'missing',
    code: 'ERR_KVM_MISSING',
    cause: /processor shows no virtualization/,
    fix: /virtual machine \(Google\).*--enable-nested-virtualization/,
  },
);

test(
  'a missing device on arm64 names no module',
  told,
  { nodes: missing, arch: 'aarch64' },
  {
    state: 'missing',
    code: 'ERR_KVM_MISSING',
    cause: /built without KVM, or was not started at the level of a hypervisor \(EL2\)/,
  },
);

const containers: readonly (readonly [name: string, host: FakeHost, flag: RegExp])[] = [
  ['docker', { nodes: { '/.dockerenv': kvmNode() } }, /docker run --device \/dev\/kvm/],
  ['docker', { texts: { '/proc/self/cgroup': '0::/docker/abc\n' } }, /docker run --device/],
  ['podman', { nodes: { '/run/.containerenv': kvmNode() } }, /podman run --device \/dev\/kvm --group-add keep-groups/],
  ['kubernetes', { env: { KUBERNETES_SERVICE_HOST: '10.0.0.1' }, nodes: { '/.dockerenv': kvmNode() } }, /kubevirt/i],
  ['kubernetes', { texts: { '/proc/self/cgroup': '0::/kubepods/besteffort/pod1\n' } }, /privileged: true/],
  ['lxc', { texts: { '/proc/1/environ': 'A=1\0container=lxc\0' } }, /lxc\.cgroup2\.devices\.allow = c 10:232 rwm/],
  ['systemd-nspawn', { env: { container: 'systemd-nspawn' } }, /--bind=\/dev\/kvm/],
  ['container (odd)', { env: { container: 'odd' } }, /pass in the device/],
];

for (const [index, [name, host, flag]] of containers.entries()) {
  test(
    `a missing device in ${name} (${index}) is passed in from outside`,
    told,
    {
      ...host,
      nodes: { ...host.nodes, ...missing },
    },
    { state: 'missing', code: 'ERR_KVM_MISSING', cause: new RegExp(name.replaceAll(/[()]/g, '.')), fix: flag },
  );
}

test(
  'a missing device of a kernel that has KVM is put into place, no module is loaded',
  told,
  {
    nodes: { ...missing, '/sys/class/misc/kvm': kvmNode({ kind: 'folder' }) },
    texts: { '/etc/group': 'root:x:0:\nkvm:x:104:\n' },
  },
  {
    state: 'missing',
    code: 'ERR_KVM_MISSING',
    cause: /kernel has KVM, but \/dev here lacks it.*PrivateDevices=/,
    fix: /put the device in its place/,
    commands: ['mknod -m 0660 /dev/kvm.new c 10 232', 'chgrp kvm /dev/kvm.new', 'mv -fT /dev/kvm.new /dev/kvm'],
  },
);

const closed = kvmNode({ kind: 'folder', mode: 0o700, gid: 0 });

test(
  'a folder that may not be searched hides the device, and is named',
  told,
  {
    nodes: { '/dev': closed, '/dev/kvm': 'EACCES' },
  },
  {
    state: 'hidden',
    code: 'ERR_KVM_PERMISSION',
    cause: /may not search \/dev$/,
    fix: /search \/dev/,
    commands: ['chmod a+x /dev'],
  },
);

test(
  'a look that is refused in a folder that everybody may search is a security module',
  told,
  { nodes: { '/dev/kvm': 'EACCES' } },
  {
    state: 'hidden',
    code: 'ERR_KVM_PERMISSION',
    cause: /security module \(SELinux, AppArmor\) refuses/,
  },
);

test('a closed home is named, but never opened to everybody', (t) => {
  const host = fakeHost({ nodes: { '/root': closed, '/root/kvm': 'EACCES' } });
  const problem = deviceProblem(host, '/root/kvm', examineDevice(host, '/root/kvm'));
  t.deepEqual(problem?.causes, ['this user may not search /root']);
  t.deepEqual(problem?.fixes, []);
});

test(
  'a loop of links hides the device, with its errno',
  told,
  { nodes: { '/dev/kvm': 'ELOOP' } },
  {
    state: 'hidden',
    code: 'ERR_KVM_PERMISSION',
    cause: /failed with ELOOP/,
  },
);

test(
  'a regular file is not a device, and is replaced',
  told,
  { nodes: { '/dev/kvm': kvmNode({ kind: 'file' }) } },
  {
    state: 'not-a-device',
    code: 'ERR_KVM_NOT_A_DEVICE',
    cause: /^it is a file$/,
    fix: /put the device in its place/,
    commands: ['mknod -m 0660 /dev/kvm.new c 10 232', 'mv -fT /dev/kvm.new /dev/kvm'],
  },
);

test(
  'a folder in its place, as a container engine makes it, is taken away first',
  told,
  { nodes: { '/dev/kvm': kvmNode({ kind: 'folder' }) } },
  {
    state: 'not-a-device',
    code: 'ERR_KVM_NOT_A_DEVICE',
    cause: /^it is a folder$/,
    fix: /put the device in its place/,
    commands: ['mknod -m 0660 /dev/kvm.new c 10 232', 'rmdir /dev/kvm', 'mv -fT /dev/kvm.new /dev/kvm'],
  },
);

test(
  'EPERM is the device cgroup of a service, not a matter of groups',
  told,
  { openErrors: { '/dev/kvm': 'EPERM' } },
  {
    state: 'forbidden',
    code: 'ERR_KVM_PERMISSION',
    cause: /device cgroup of this process/,
    fix: /DeviceAllow=\/dev\/kvm rw/,
  },
);

test(
  'EPERM in a container is its device cgroup',
  told,
  {
    openErrors: { '/dev/kvm': 'EPERM' },
    nodes: { '/.dockerenv': kvmNode() },
  },
  {
    state: 'forbidden',
    code: 'ERR_KVM_PERMISSION',
    cause: /device cgroup of this container \(docker\)/,
    fix: /--device/,
  },
);

for (const errno of ['ENODEV', 'ENXIO', 'EMFILE', 'EIO']) {
  test(
    `${errno} is unavailable with its errno and no fix`,
    told,
    { openErrors: { '/dev/kvm': errno } },
    {
      state: 'unavailable',
      code: 'ERR_KVM_FAILED',
      cause: new RegExp(`^opening /dev/kvm failed with ${errno}$`),
    },
  );
}

test('a device that opens has no problem', (t) => {
  const host = fakeHost();
  const state = examineDevice(host, '/dev/kvm');
  t.is(state.state, 'usable');
  t.is(deviceProblem(host, '/dev/kvm', state), undefined);
  t.is(deviceError(host, '/dev/kvm', state), undefined);
});

test('a path that is mistaken is told where the usual device is there', (t) => {
  const host = fakeHost();
  const problem = deviceProblem(host, '/dev/kmv', examineDevice(host, '/dev/kmv'));
  t.regex(problem?.causes[0] ?? '', /\/dev\/kvm is there: the path is mistaken/);
});
