// The causes of a refusal and their ways out, one by one.

import test from 'ava';

import { examineDevice } from '../../../src/doctor/kvm/device.ts';
import { deviceProblem } from '../../../src/doctor/kvm/problems.ts';
import type { Problem } from '../../../src/doctor/model.ts';
import { typedLine } from '../../../src/doctor/elevation.ts';
import { aclWith, ANN, type FakeHost, fakeHost, kvmNode } from '../../helpers/fake-host.ts';

interface Expected {
  readonly cause: RegExp;
  readonly commands: readonly string[];
  readonly relogin?: boolean;
}

const NOBODY_IN_KVM = 'root:x:0:\nann:x:1000:\nkvm:x:104:\n';
const SETFACL = 'sudo setfacl -m u:ann:rw /dev/kvm';

function problemOf(different: FakeHost): Problem {
  const host = fakeHost({ openErrors: { '/dev/kvm': 'EACCES' }, identity: ANN, ...different });
  const problem = deviceProblem(host, '/dev/kvm', examineDevice(host, '/dev/kvm'));
  if (problem === undefined) throw new Error('There is no problem');
  return problem;
}

const explains = test.macro<[FakeHost, Expected]>((t, different, { cause, commands, relogin = false }) => {
  const problem = problemOf(different);
  t.is(problem.causes.length, 1, problem.causes.join('; '));
  t.regex(problem.causes[0] ?? '', cause);
  t.deepEqual(
    problem.fixes.flatMap((fix) => fix.commands.map((command) => typedLine(command, fakeHost()))),
    [...commands],
  );
  t.is(
    problem.fixes.some(({ needsRelogin }) => needsRelogin),
    relogin,
  );
});

test(
  'a member by the database whose process lacks the group has a login that is older',
  explains,
  {},
  {
    cause: /^you are in the 'kvm' group, but this login session predates the change/,
    commands: [SETFACL],
  },
);

test(
  'a member by primary group counts as one by the database',
  explains,
  {
    passwd: 'ann:x:1000:104::/:/bin/sh\n',
    group: NOBODY_IN_KVM,
  },
  { cause: /predates the change/, commands: [SETFACL] },
);

test(
  'a group that one is not in is named, and joined for good',
  explains,
  { group: NOBODY_IN_KVM },
  {
    cause: /^\/dev\/kvm is owned by group 'kvm', which your user is not in$/,
    commands: ['sudo usermod -aG kvm ann', SETFACL],
    relogin: true,
  },
);

test(
  'a group of another name is never joined',
  explains,
  { group: 'disk:x:104:\n' },
  {
    cause: /owned by group 'disk', which your user is not in/,
    commands: [SETFACL],
  },
);

test(
  'a group without a name is told by its number',
  explains,
  { group: 'root:x:0:\n' },
  {
    cause: /owned by group 'gid 104', which/,
    commands: [SETFACL],
  },
);

test(
  'group bits that do not grant are the cause, whoever is in the group',
  explains,
  {
    nodes: { '/dev/kvm': kvmNode({ mode: 0o640 }) },
    group: NOBODY_IN_KVM,
  },
  { cause: /group permissions do not grant read\/write access \(mode 0640\)$/, commands: [SETFACL] },
);

test(
  'a member by the database with mode 0600 is not told to log in again',
  explains,
  {
    nodes: { '/dev/kvm': kvmNode({ mode: 0o600 }) },
  },
  { cause: /group permissions do not grant read\/write access \(mode 0600\)$/, commands: [SETFACL] },
);

test(
  'a member whose process has the group, with mode 0600, is told of the mode',
  explains,
  {
    nodes: { '/dev/kvm': kvmNode({ mode: 0o600 }) },
    identity: { ...ANN, groups: [104] },
  },
  { cause: /do not grant read\/write access \(mode 0600\)$/, commands: [SETFACL] },
);

test(
  'with a list whose group entry grants nothing, the mode is not the rights of the group',
  explains,
  {
    accessList: aclWith({ tag: 'user', id: 7, permissions: 6 }, { group: 0 }),
    group: NOBODY_IN_KVM,
  },
  { cause: /group permissions do not grant/, commands: [SETFACL] },
);

test(
  'a mask that cuts the group off is named',
  explains,
  {
    nodes: { '/dev/kvm': kvmNode({ mode: 0o640 }) },
    accessList: aclWith({ tag: 'user', id: 7, permissions: 6 }, { mask: 4 }),
    identity: { ...ANN, groups: [104] },
  },
  { cause: /the mask of its access control list takes them away/, commands: [SETFACL] },
);

test(
  'an entry for the user that denies is the cause, although the group grants',
  explains,
  {
    accessList: aclWith({ tag: 'user', id: 1000, permissions: 0 }),
    identity: { ...ANN, groups: [104] },
  },
  { cause: /has an entry for you that does not grant/, commands: [SETFACL] },
);

test(
  'an entry for the user that the mask disables is told from one that denies',
  explains,
  {
    accessList: aclWith({ tag: 'user', id: 1000, permissions: 6 }, { mask: 0 }),
  },
  { cause: /has an entry for you, but its mask takes/, commands: [SETFACL] },
);

test(
  'in the group, everything granted, and still refused: a security module, which no command of ours mends',
  explains,
  {
    identity: { ...ANN, groups: [104] },
  },
  { cause: /your process belongs to the 'kvm' group and .* a security module/, commands: [] },
);

test(
  'granted by others and still refused is a security module too',
  explains,
  {
    nodes: { '/dev/kvm': kvmNode({ mode: 0o666 }) },
  },
  { cause: /its permissions grant it, yet .* a security module/, commands: [] },
);

test(
  'where the list cannot be read, one in the group who is refused may need an entry',
  explains,
  {
    accessList: 'unknown',
    identity: { ...ANN, groups: [104] },
  },
  { cause: /belongs to the 'kvm' group, but \/dev\/kvm still rejects/, commands: [SETFACL] },
);

test(
  "an owner without rights changes the owner's permissions, which an entry would not",
  explains,
  {
    nodes: { '/dev/kvm': kvmNode({ uid: 1000, mode: 0o060 }) },
  },
  { cause: /^you own \/dev\/kvm, but/, commands: ['sudo chmod u+rw /dev/kvm'] },
);

test(
  'a user without an entry in the database gets the cause, and no fix',
  explains,
  {
    passwd: 'root:x:0:0::/:/bin/sh\n',
  },
  { cause: /owned by group 'kvm', which your user is not in/, commands: [] },
);

test(
  'a file system that is mounted nodev disables the device',
  explains,
  {
    texts: { '/proc/self/mountinfo': '1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /dev rw,nodev,relatime - tmpfs b rw\n' },
  },
  { cause: /mounted with nodev/, commands: [] },
);

test(
  'nodev of another mount says nothing',
  explains,
  {
    texts: { '/proc/self/mountinfo': '1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /dev/shm rw,nodev - tmpfs b rw\n' },
  },
  { cause: /predates the change/, commands: [SETFACL] },
);

test(
  'an owner that the user namespace does not map cannot be helped from inside',
  explains,
  {
    nodes: { '/dev/kvm': kvmNode({ uid: 65_534, gid: 65_534 }), '/run/.containerenv': kvmNode({ kind: 'file' }) },
    texts: { '/proc/self/uid_map': '         0       1000          1\n' },
  },
  { cause: /user namespace does not map/, commands: [] },
);

test(
  'setfacl that is missing is installed first, and its package named',
  explains,
  {
    programs: { setfacl: '' },
  },
  { cause: /predates/, commands: ['sudo apt-get update', 'sudo apt-get install -y acl', SETFACL] },
);

test('the package of setfacl is named in the description', (t) => {
  const [fix] = problemOf({ programs: { setfacl: '' } }).fixes;
  t.regex(fix?.description ?? '', /setfacl is in the package acl/);
});

test('the package is named too where no installer is known', (t) => {
  const [fix] = problemOf({ programs: { setfacl: '', 'apt-get': '' } }).fixes;
  t.regex(fix?.description ?? '', /setfacl is in the package acl/);
});

test(
  'names with spaces and shell characters come out quoted',
  explains,
  {
    passwd: "an'n $x:x:1000:1000::/:/bin/sh\n",
    group: NOBODY_IN_KVM,
  },
  {
    cause: /not in$/,
    commands: [String.raw`sudo usermod -aG kvm 'an'\''n $x'`, String.raw`sudo setfacl -m 'u:an'\''n $x:rw' /dev/kvm`],
    relogin: true,
  },
);

test('a path with spaces comes out quoted', (t) => {
  const device = '/dev/my kvm';
  const host = fakeHost({ openErrors: { [device]: 'EACCES' }, identity: ANN, nodes: { [device]: kvmNode() } });
  const [fix] = deviceProblem(host, device, examineDevice(host, device))?.fixes ?? [];
  t.is(typedLine(fix?.commands[0] ?? { argv: [], sudo: false }, host), "sudo setfacl -m u:ann:rw '/dev/my kvm'");
});

for (const [name, inside, advice] of [
  [
    'docker',
    { nodes: { '/.dockerenv': kvmNode({ kind: 'file' }) } },
    /docker run --device \/dev\/kvm --group-add 104 …/,
  ],
  ['kubernetes', { env: { KUBERNETES_SERVICE_HOST: '10.0.0.1' } }, /supplementalGroups: \[104\]/],
] as const) {
  test(`in ${name}, the way to grant it where the container is started comes with what helps until then`, (t) => {
    const { fixes } = problemOf({ ...inside, group: NOBODY_IN_KVM });
    t.is(fixes.length, 2);
    t.regex(fixes[1]?.description ?? '', advice);
  });
}
