// The checks of everything around KVM.

import test from 'ava';

import { checkConfinement } from '../../../src/doctor/checks/confinement.ts';
import { checkDevices } from '../../../src/doctor/checks/devices.ts';
import { checkGuestKernel } from '../../../src/doctor/checks/guest-kernel.ts';
import { checkKernelInterfaces } from '../../../src/doctor/checks/kernel-interfaces.ts';
import { checkLimits } from '../../../src/doctor/checks/limits.ts';
import { checkMemory } from '../../../src/doctor/checks/memory.ts';
import { checkPackage } from '../../../src/doctor/checks/package.ts';
import { checkPlatform } from '../../../src/doctor/checks/platform.ts';
import { checkQemu } from '../../../src/doctor/checks/qemu.ts';
import { checkSurroundings } from '../../../src/doctor/checks/surroundings.ts';
import { checkTuning } from '../../../src/doctor/checks/tuning.ts';
import { checkVsock } from '../../../src/doctor/checks/vsock.ts';
import type { Context } from '../../../src/doctor/context.ts';
import type { CheckStatus, Finding } from '../../../src/doctor/model.ts';
import { contextOf, type FakeHost, fakeHost, kvmNode, ok, refused } from '../../helpers/fake-host.ts';

type Check = (context: Context) => Finding | Promise<Finding>;

/** One line of a check on a host that differs from the healthy one. */
const says = test.macro<[Check, FakeHost, string, CheckStatus, string | RegExp]>(
  async (t, check, different, id, status, value) => {
    const { checks, problems } = await check(await contextOf(different));
    const found = checks.find((each) => each.id === id);
    t.is(found?.status, status);
    if (typeof value === 'string') t.is(found?.value, value);
    else t.regex(found?.value ?? '', value);
    t.is(
      problems.some((problem) => problem.check === id),
      status === 'warn' || status === 'fail',
      'what is wrong has a problem, and what is not has none',
    );
  },
);

test('the platform is named with its architecture', says, checkPlatform, {}, 'platform', 'info', 'Linux x86_64');
test('so is arm64', says, checkPlatform, { arch: 'aarch64' }, 'platform', 'info', 'Linux aarch64');
test('the kernel has its release', says, checkPlatform, {}, 'kernel', 'info', '6.1.0');

test('no container is none', says, checkSurroundings, {}, 'container', 'info', 'none');
test(
  'a container with the device needs no advice',
  says,
  checkSurroundings,
  { nodes: { '/.dockerenv': kvmNode() } },
  'container',
  'info',
  'docker',
);
test(
  'a container without it is told the flag',
  says,
  checkSurroundings,
  { nodes: { '/.dockerenv': kvmNode(), '/dev/kvm': 'ENOENT' } },
  'container',
  'info',
  /^docker; .*docker run --device \/dev\/kvm/,
);
test(
  'WSL2 is told of its setting',
  says,
  checkSurroundings,
  { nodes: { '/dev/kvm': 'ENOENT' }, texts: { '/proc/version': 'Linux version 5.15 (x@Microsoft.com)' } },
  'machine',
  'info',
  /^WSL2; .*nestedVirtualization=true/,
);
for (const [vendor, advice] of [
  ['Amazon EC2', /\.metal/],
  ['Microsoft Corporation', /ExposeVirtualizationExtensions/],
  ['VMware, Inc.', /hardware assisted/],
  ['innotek GmbH', /--nested-hw-virt/],
  ['QEMU', /nested=1/],
] as const) {
  test(
    `a virtual machine of ${vendor} is told how to nest`,
    says,
    checkSurroundings,
    {
      nodes: { '/dev/kvm': 'ENOENT' },
      texts: { '/sys/class/dmi/id/sys_vendor': `${vendor}\n`, '/proc/cpuinfo': 'flags : hypervisor\n' },
    },
    'machine',
    'info',
    advice,
  );
}

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

test('QEMU is installed by the installer that is there', async (t) => {
  const { problems } = await checkQemu({
    host: fakeHost({ programs: { 'qemu-system-x86_64': '', 'apt-get': '', dnf: '/usr/bin/dnf' } }),
  });
  t.deepEqual(problems[0]?.fixes[0]?.commands, [
    { argv: ['dnf', 'install', '-y', 'qemu-system-x86-core'], sudo: true },
  ]);
});

const kernel = { image: '/k', release: '6.1', source: 'cache', modules: '/m', missingDrivers: undefined };
test('a guest kernel is shown', says, checkGuestKernel, {}, 'guest-kernel', 'pass', '6.1.0-cloud (/k/vmlinuz)');
test(
  'a guest kernel that is not found is a warning',
  says,
  checkGuestKernel,
  { guestKernel: async () => ({ code: 'ERR_KERNEL_NOT_FOUND', message: 'None', hint: 'Fetch' }) },
  'guest-kernel',
  'warn',
  'cannot be used (ERR_KERNEL_NOT_FOUND)',
);
test(
  'a guest kernel without drivers is a warning',
  says,
  checkGuestKernel,
  { guestKernel: async () => ({ ...kernel, missingDrivers: 'lacks virtio_mmio' }) },
  'guest-drivers',
  'warn',
  'missing',
);
test(
  'a guest kernel without modules may have all built in',
  says,
  checkGuestKernel,
  { guestKernel: async () => ({ ...kernel, modules: undefined }) },
  'guest-drivers',
  'info',
  /built in/,
);

const memory = (kib: number): FakeHost => ({ texts: { '/proc/meminfo': `MemAvailable: ${kib} kB\n` } });
test('memory for a machine passes', says, checkMemory, memory(262_144), 'memory', 'pass', '256 MiB available');
test(
  'less memory than a machine takes is a warning',
  says,
  checkMemory,
  memory(262_143),
  'memory',
  'warn',
  /available$/,
);
test('/dev/shm is shown', says, checkMemory, {}, 'shared-memory', 'info', '1 GiB free');
test(
  '/dev/shm may be missing',
  says,
  checkMemory,
  { freeBytes: () => undefined },
  'shared-memory',
  'info',
  'not there',
);
const cgroup = (texts: Record<string, string>): FakeHost => ({ texts: { '/proc/self/cgroup': '0::/a/b\n', ...texts } });
test('no limit of the control group is none', says, checkMemory, cgroup({}), 'cgroup', 'info', 'none');
test(
  'the limits of the groups above count',
  says,
  checkMemory,
  cgroup({
    '/sys/fs/cgroup/a/b/memory.max': 'max\n',
    '/sys/fs/cgroup/a/memory.max': '2147483648\n',
    '/sys/fs/cgroup/a/b/cpu.max': '150000 100000\n',
    '/sys/fs/cgroup/a/cpu.max': 'max 100000\n',
    '/sys/fs/cgroup/a/pids.max': '99\n',
  }),
  'cgroup',
  'info',
  'memory 2 GiB, 1.5 CPUs, 99 tasks',
);
test(
  'a control group that leaves too little is a warning',
  says,
  checkMemory,
  cgroup({
    '/sys/fs/cgroup/a/memory.max': '536870912\n',
    '/sys/fs/cgroup/a/memory.current': '436207616\n',
  }),
  'cgroup-memory',
  'warn',
  '96 MiB left',
);
test(
  'version 1 limits memory too',
  says,
  checkMemory,
  {
    texts: { '/proc/self/cgroup': '4:memory:/x\n', '/sys/fs/cgroup/memory/x/memory.limit_in_bytes': '1073741824\n' },
  },
  'cgroup',
  'info',
  'memory 1 GiB',
);
test(
  'the endless limit of version 1 is none',
  says,
  checkMemory,
  {
    texts: {
      '/proc/self/cgroup': '4:memory:/x\n',
      '/sys/fs/cgroup/memory/x/memory.limit_in_bytes': '9223372036854771712\n',
    },
  },
  'cgroup',
  'info',
  'none',
);

const limits = (files: string, locked = '8388608'): FakeHost => ({
  texts: {
    '/proc/self/limits': `Max locked memory         ${locked}   x bytes\nMax open files            ${files}   x files\n`,
  },
});
test('enough open files pass', says, checkLimits, limits('1024'), 'open-files', 'pass', 'at most 1024');
test('no limit of open files passes', says, checkLimits, limits('unlimited'), 'open-files', 'pass', 'unlimited');
test('few open files are a warning', says, checkLimits, limits('64'), 'open-files', 'warn', 'at most 64');
test('the limit of locked memory is shown', says, checkLimits, limits('1024'), 'locked-memory', 'info', '8 MiB');
test('so is none', says, checkLimits, limits('1024', 'unlimited'), 'locked-memory', 'info', 'unlimited');

const vsock = { '/dev/vhost-vsock': kvmNode() };
test('AF_VSOCK that is there', says, checkVsock, {}, 'af-vsock', 'info', 'available');
test(
  'AF_VSOCK that is not',
  says,
  checkVsock,
  { interfaces: { af_vsock: refused('EAFNOSUPPORT') } },
  'af-vsock',
  'info',
  /EAFNOSUPPORT/,
);
test('no vhost-vsock', says, checkVsock, {}, 'vhost-vsock', 'info', /module vhost_vsock is not loaded/);
test(
  'vhost-vsock with its CID free',
  says,
  checkVsock,
  { nodes: vsock },
  'vhost-vsock',
  'info',
  '/dev/vhost-vsock, CID 3 is free',
);
test(
  'vhost-vsock with its CID taken',
  says,
  checkVsock,
  { nodes: vsock, tryVsockCid: () => refused('EADDRINUSE') },
  'vhost-vsock',
  'info',
  /CID 3 is taken by another machine/,
);
test(
  'vhost-vsock that may not be opened',
  says,
  checkVsock,
  { nodes: vsock, openErrors: { '/dev/vhost-vsock': 'EACCES' } },
  'vhost-vsock',
  'info',
  /cannot be opened \(EACCES\)/,
);

test(
  'TUN/TAP that is there',
  says,
  checkDevices,
  { nodes: { '/dev/net/tun': kvmNode() } },
  'tun',
  'info',
  '/dev/net/tun',
);
test('FUSE that is not', says, checkDevices, {}, 'fuse', 'info', 'no /dev/fuse');
test(
  'FUSE that may not be opened',
  says,
  checkDevices,
  { nodes: { '/dev/fuse': kvmNode() }, openErrors: { '/dev/fuse': 'EACCES' } },
  'fuse',
  'info',
  /cannot be opened \(EACCES\)/,
);
test(
  'userfaultfd that is refused',
  says,
  checkKernelInterfaces,
  { interfaces: { userfaultfd: refused('EPERM') } },
  'userfaultfd',
  'info',
  'refused (EPERM)',
);
test(
  'io_uring without the addon',
  says,
  checkKernelInterfaces,
  { tryInterface: () => undefined },
  'io-uring',
  'info',
  /without the addon/,
);
test(
  'huge pages are counted',
  says,
  checkKernelInterfaces,
  { texts: { '/proc/meminfo': 'HugePages_Free: 7\nHugepagesize: 2048 kB\n' } },
  'huge-pages',
  'info',
  '7 of 2 MiB free',
);

const seccomp = { '/proc/sys/kernel/seccomp/actions_avail': 'kill_process errno allow\n' };
test('seccomp that is there', says, checkConfinement, { texts: seccomp }, 'seccomp', 'info', 'available');
test(
  'seccomp under a filter',
  says,
  checkConfinement,
  { texts: { ...seccomp, '/proc/self/status': 'Seccomp:\t2\n' } },
  'seccomp',
  'info',
  /under a filter already/,
);
test('seccomp that is not', says, checkConfinement, {}, 'seccomp', 'info', /not in this kernel/);
test(
  'Landlock has a version',
  says,
  checkConfinement,
  { interfaces: { landlock: ok(4) } },
  'landlock',
  'info',
  'ABI version 4',
);
test(
  'Landlock that is switched off',
  says,
  checkConfinement,
  { interfaces: { landlock: refused('EOPNOTSUPP') } },
  'landlock',
  'info',
  'not available (EOPNOTSUPP)',
);
test(
  'capabilities are named',
  says,
  checkConfinement,
  { texts: { '/proc/self/status': 'CapEff:\t0000000000200002\n' } },
  'capabilities',
  'info',
  'some, with CAP_DAC_OVERRIDE, CAP_SYS_ADMIN',
);
test(
  'none are none',
  says,
  checkConfinement,
  { texts: { '/proc/self/status': 'CapEff:\t0000000000000000\n' } },
  'capabilities',
  'info',
  'none',
);
const namespaces = { '/proc/sys/user/max_user_namespaces': '100\n' };
const unshare = { unshare: '/usr/bin/unshare' };
test(
  'user namespaces that work',
  says,
  checkConfinement,
  { texts: namespaces, programs: unshare },
  'user-namespaces',
  'info',
  'available',
);
test(
  'user namespaces that AppArmor refuses',
  says,
  checkConfinement,
  {
    texts: { ...namespaces, '/proc/sys/kernel/apparmor_restrict_unprivileged_userns': '1\n' },
    programs: unshare,
    run: async () => ({ code: 1, stdout: '' }),
  },
  'user-namespaces',
  'info',
  /apparmor_restrict_unprivileged_userns=1/,
);
test(
  'user namespaces that are switched off',
  says,
  checkConfinement,
  { texts: { '/proc/sys/user/max_user_namespaces': '0\n' } },
  'user-namespaces',
  'info',
  /max_user_namespaces=0/,
);

const nx = '/sys/module/kvm/parameters/nx_huge_pages';
for (const value of ['Y', 'N']) {
  test(
    `nx_huge_pages with ${value} is a note`,
    says,
    checkTuning,
    { texts: { [nx]: `${value}\n` } },
    'nx-huge-pages',
    'info',
    new RegExp(`^${value}: creating a machine`),
  );
}
test(
  'nx_huge_pages with never passes',
  says,
  checkTuning,
  { texts: { [nx]: 'never\n' } },
  'nx-huge-pages',
  'pass',
  /never/,
);
test(
  'nx_huge_pages with favordynmods passes',
  says,
  checkTuning,
  {
    texts: { [nx]: 'Y\n', '/proc/self/mountinfo': '1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,favordynmods\n' },
  },
  'nx-huge-pages',
  'pass',
  /favordynmods is on/,
);
test('no such setting is none', says, checkTuning, {}, 'nx-huge-pages', 'info', /not a setting/);
test(
  'SMT is a note',
  says,
  checkTuning,
  { texts: { '/sys/devices/system/cpu/smt/active': '1\n' } },
  'smt',
  'info',
  /^on: guests/,
);
test('KSM is a note', says, checkTuning, { texts: { '/sys/kernel/mm/ksm/run': '1\n' } }, 'ksm', 'info', /^on: guests/);
test(
  'swap is a note',
  says,
  checkTuning,
  { texts: { '/proc/swaps': 'Filename Type\n/dev/sda2 partition 1 0 -2\n' } },
  'swap',
  'info',
  /^on: memory/,
);
test('no swap is none', says, checkTuning, { texts: { '/proc/swaps': 'Filename Type\n' } }, 'swap', 'info', 'none');
test(
  'favordynmods is read off the mount',
  says,
  checkTuning,
  { texts: { '/proc/self/mountinfo': '1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,favordynmods\n' } },
  'favordynmods',
  'info',
  'on',
);

test('a package that is whole passes', says, checkPackage, {}, 'agent', 'pass', '/m/microvm-agent');
