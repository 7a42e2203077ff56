// Broken hosts for real, each in a mount namespace: the one right cause, and commands that mend it when they are run there.

import test from 'ava';

import {
  checkOf,
  doctorIn,
  hasKvm,
  hasUserNamespaces,
  kvmProblems,
  MEMBER,
  type Patient,
  treat,
  untreatable,
  USER,
} from '../helpers/patient.ts';

const reason = untreatable();
const asRoot = reason === undefined ? test.serial : test.skip;
// What opens only where the machine itself has KVM.
const withKvm = reason === undefined && hasKvm() ? test.serial : test.skip;
const withUserNamespaces = reason === undefined && hasUserNamespaces() ? test.serial : test.skip;
const missing = [
  reason,
  hasKvm() ? undefined : 'there is no KVM device that opens',
  reason !== undefined || hasUserNamespaces() ? undefined : 'users may not make user namespaces',
].filter((why) => why !== undefined);
if (missing.length > 0) test('some hosts in namespaces are skipped', (t) => t.log(missing.join('; ')));

const NODE = 'mknod -m 660 kvm c 10 232; chgrp 54321 kvm';

const mended = test.macro<[Patient, RegExp]>(async (t, patient, cause) => {
  const { before, ran, after } = await treat(patient);
  const [problem, ...others] = kvmProblems(before);
  t.deepEqual(others, []);
  t.regex(problem?.causes.join('; ') ?? '', cause);
  t.is(checkOf(before, 'kvm-access')?.status, 'fail');
  t.is(before.failure?.code, 'ERR_KVM_PERMISSION');
  t.regex(before.failure?.hint ?? '', /To mend it: .*(setfacl -m|chmod)/);
  t.true(ran.length > 0);
  for (const { status, stderr } of ran) t.is(status, 0, stderr);
  t.deepEqual(kvmProblems(after), []);
  t.is(checkOf(after, 'kvm-access')?.status, 'pass');
});

withKvm(
  'a user who is not in the group joins it',
  mended,
  { device: NODE, who: USER },
  /'kvm', which your user is not in/,
);

withKvm(
  'a member whose login is older is granted access',
  mended,
  {
    device: NODE,
    who: USER,
    group: 'kvm:x:54321:tester',
  },
  /login session predates the change/,
);

withKvm(
  'a mode of 0600 is told as that, to a member too',
  mended,
  {
    device: 'mknod -m 600 kvm c 10 232; chgrp 54321 kvm',
    who: MEMBER,
    group: 'kvm:x:54321:tester',
  },
  /group permissions do not grant read\/write access \(mode 0600\)/,
);

withKvm(
  'mode 0660 of another group is not joined',
  mended,
  {
    device: NODE,
    who: USER,
    group: 'disk of all:x:54321:',
  },
  /owned by group 'disk of all', which your user is not in/,
);

withKvm(
  'a user whose name has spaces and shell characters is mended by what a shell reads',
  mended,
  { device: NODE, who: USER, user: "an n$x'y" },
  /'kvm', which your user is not in/,
);

withKvm(
  'a group without a name is told by its number',
  mended,
  {
    device: NODE,
    who: USER,
    group: '#',
  },
  /owned by group 'gid 54321'/,
);

withKvm(
  'an access control list that denies a member is the cause',
  mended,
  {
    device: `${NODE}; setfacl -m u:12345:- kvm`,
    who: MEMBER,
  },
  /has an entry for you that does not grant/,
);

withKvm(
  'an access control list whose mask disables an entry is the cause',
  mended,
  {
    device: `${NODE}; setfacl -m u:12345:rw,m::- kvm`,
    who: USER,
  },
  /has an entry for you, but its mask takes/,
);

withKvm(
  'an owner without rights is given them',
  mended,
  {
    device: 'mknod -m 060 kvm c 10 232; chown 12345:54321 kvm',
    who: USER,
  },
  /^you own \/dev\/kvm/,
);

withKvm('an access control list that grants is enough', async (t) => {
  const { before } = await treat({ device: `${NODE}; setfacl -m u:12345:rw kvm`, who: USER });
  t.deepEqual(kvmProblems(before), []);
  t.is(checkOf(before, 'kvm-access')?.value, 'read/write');
});

withKvm('a process with the group needs no entry in the database', async (t) => {
  const { before } = await treat({ device: NODE, who: MEMBER, user: undefined });
  t.is(checkOf(before, 'kvm-access')?.status, 'pass');
});

withKvm('root needs neither group nor mode', async (t) => {
  const { before } = await treat({ device: 'mknod -m 000 kvm c 10 232' });
  t.is(checkOf(before, 'kvm-access')?.status, 'pass');
});

withKvm('behind sudo, the caller is told what he lacks, and the commands give it', async (t) => {
  const { before, ran, after } = await treat({ device: NODE, who: ['env', 'SUDO_UID=12345'] });
  t.is(checkOf(before, 'kvm-access-caller')?.status, 'warn');
  t.regex(kvmProblems(before)[0]?.title ?? '', /not accessible by tester/);
  t.deepEqual(
    ran.map(({ status }) => status),
    [0, 0],
  );
  t.is(checkOf(after, 'kvm-access-caller')?.status, 'pass');
});

asRoot('a user without an entry in the database gets no commands', async (t) => {
  const { before, ran } = await treat({ device: NODE, who: USER, user: undefined });
  t.regex(kvmProblems(before)[0]?.causes[0] ?? '', /which your user is not in/);
  t.deepEqual(ran, []);
});

// What mends these two is run in the lab (e2e-kvm/long/doctor-repairs): a container is told what to do where it is started.
asRoot('a device that is missing is told as that', async (t) => {
  const { before } = await treat({ device: ':' });
  t.is(checkOf(before, 'kvm-device')?.value, 'missing');
  t.is(kvmProblems(before)[0]?.id, 'kvm-missing');
  t.is(before.failure?.code, 'ERR_KVM_MISSING');
  t.is(before.report.verdict.kvm.usable, false);
});

asRoot('a regular file in its place is told as that', async (t) => {
  const { before } = await treat({ device: 'touch kvm' });
  t.is(checkOf(before, 'kvm-device')?.value, 'not a device');
  t.is(kvmProblems(before)[0]?.causes[0], 'it is a file');
  t.is(before.failure?.code, 'ERR_KVM_NOT_A_DEVICE');
});

asRoot('a mount with nodev is told as that, which permissions would not explain', async (t) => {
  const { before } = await treat({ device: NODE, who: MEMBER, also: 'mount -o remount,bind,nodev /dev' });
  t.regex(kvmProblems(before)[0]?.causes[0] ?? '', /mounted with nodev/);
  t.deepEqual(kvmProblems(before)[0]?.fixes, []);
});

withUserNamespaces('root of a user namespace that does not map the owner cannot be helped from inside', async (t) => {
  const who = [...USER, 'unshare', '--user', '--map-root-user'];
  const { before, ran } = await treat({ device: NODE, who });
  t.regex(kvmProblems(before)[0]?.causes[0] ?? '', /user namespace does not map the owner/);
  t.deepEqual(ran, []);
});

asRoot('a folder that may not be searched is named, and opened', async (t) => {
  const { before, ran, after } = await treat({ device: NODE, who: MEMBER, also: 'chmod 700 /mnt/dev' });
  t.is(checkOf(before, 'kvm-device')?.value, 'hidden');
  t.regex(kvmProblems(before)[0]?.causes[0] ?? '', /may not search \/dev$/);
  t.deepEqual(
    ran.map(({ status }) => status),
    [0],
  );
  t.is(checkOf(after, 'kvm-device')?.status, 'pass');
});

asRoot('another device under the name of KVM is told as that', async (t) => {
  const { before } = await treat({ device: 'mknod -m 666 kvm c 1 3' });
  t.like(checkOf(before, 'kvm-api'), { status: 'fail', value: 'not KVM' });
  t.deepEqual(kvmProblems(before)[0]?.causes, ['it is another device']);
  t.is(before.failure?.code, 'ERR_KVM_NOT_A_DEVICE');
});

const SUDOER: Patient = { device: NODE, who: ['env', 'SUDO_UID=12345'] };

withKvm('--fix shows each command, asks, runs what was agreed to, and looks again', async (t) => {
  const { stdout, stderr } = await doctorIn(SUDOER, ['--fix'], 'y\n');
  const [first = '', second = ''] = stdout.split('Looked again');
  t.regex(first, /usermod -aG kvm tester\n\s+setfacl -m u:tester:rw \/dev\/kvm\n.*log out.*\n.*run this\? \[y\/N\]/);
  t.regex(first, /\[warn\] … for tester/);
  t.regex(second, /\[pass\] … for tester/, stderr);
});

for (const [answer, input] of [
  ['no', 'n\n'],
  ['an empty line', '\n'],
  ['the end of the input', ''],
] as const) {
  withKvm(`--fix runs nothing where the answer is ${answer}`, async (t) => {
    const { stdout } = await doctorIn(SUDOER, ['--fix'], input);
    t.regex(stdout, /run this\?[^]*Nothing was run\.\n$/);
    t.notRegex(stdout, /Looked again/);
  });
}

withKvm('--fix --yes --json shows commands on standard error and gives the mended report', async (t) => {
  const { stdout, stderr } = await doctorIn(SUDOER, ['--fix', '--yes', '--json']);
  t.regex(stderr, /usermod -aG kvm tester/);
  const { sections } = JSON.parse(stdout) as { sections: { checks: { id: string; status: string }[] }[] };
  const check = sections.flatMap(({ checks }) => checks).find(({ id }) => id === 'kvm-access-caller');
  t.is(check?.status, 'pass');
});

withKvm('--fix stops at a command that fails, and tells which', async (t) => {
  // A database that cannot be written to: usermod fails, and setfacl is not run after it.
  const { stdout } = await doctorIn({ ...SUDOER, also: 'mount -o remount,bind,ro /etc' }, ['--fix', '--yes']);
  t.regex(stdout, /usermod -aG kvm tester failed \(\d+\)/);
  t.notRegex(stdout.split('Looked again')[1] ?? '', /\[pass\] … for tester/);
});

const withoutAddon = (also: string): Patient => ({ device: NODE, also });

for (const [what, also, cause] of [
  ['is missing', 'mount -t tmpfs none /mnt/project/native', /There is no native addon for linux-/],
  [
    'does not load',
    'mount -t tmpfs none /mnt/project/native; for libc in gnu musl; do echo x > /mnt/project/native/microvm.linux-$(uname -m | sed s/x86_64/x64/\\;s/aarch64/arm64/)-$libc.node; done',
    /The native addon cannot be loaded/,
  ],
] as const) {
  asRoot(
    `the first finding is the addon where it ${what}, the rest is looked at, and the exit code is 1`,
    async (t) => {
      const { stdout, stderr, exitCode } = await doctorIn(withoutAddon(also), ['--json']);
      t.is(exitCode, 1, stderr);
      const report = JSON.parse(stdout) as Parameters<typeof checkOf>[0]['report'];
      const problems = report.sections.flatMap((section) => section.problems);
      t.is(problems[0]?.id, 'addon-missing');
      t.regex(problems[0]?.causes[0] ?? '', cause);
      t.is(checkOf({ report, failure: undefined }, 'kvm-device')?.status, 'pass');
    },
  );
}
