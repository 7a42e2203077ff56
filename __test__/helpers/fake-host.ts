// A host that is made up: a healthy one, with whatever a test makes different.

import { accountsOfFiles } from '../../src/host/accounts.ts';
import { type Context, prepare } from '../../src/doctor/context.ts';
import type {
  AclEntry,
  DoctorHost,
  FileFacts,
  Identity,
  InterfaceName,
  KvmAnswers,
  Outcome,
} from '../../src/doctor/host.ts';

export const ok = <T>(value: T): Outcome<T> => ({ ok: true, value });
export const refused = (errno: string): { ok: false; errno: string } => ({ ok: false, errno });

/** What `/dev/kvm` is on most distributions: root:kvm with mode 0660. */
export const kvmNode = (facts: Partial<FileFacts> = {}): FileFacts => ({
  kind: 'character device',
  mode: 0o660,
  uid: 0,
  gid: 104,
  ...facts,
});

/** The access control list that an owner, the group and others make, with one more entry and a mask. */
export function aclWith(extra: AclEntry, { group = 6, mask = 6 }: { group?: number; mask?: number } = {}): AclEntry[] {
  return [
    { tag: 'owner', id: undefined, permissions: 6 },
    extra,
    { tag: 'owning-group', id: undefined, permissions: group },
    { tag: 'mask', id: undefined, permissions: mask },
    { tag: 'other', id: undefined, permissions: 0 },
  ];
}

export interface FakeHost extends Partial<Omit<DoctorHost, 'stat' | 'readText' | 'open' | 'acl' | 'program'>> {
  /** Files with their facts, or the errno of looking at them. */
  readonly nodes?: Readonly<Record<string, FileFacts | string>>;
  /** Texts of files. */
  readonly texts?: Readonly<Record<string, string>>;
  /** Errno of opening, by path; what has none opens. */
  readonly openErrors?: Readonly<Record<string, string>>;
  readonly accessList?: readonly AclEntry[] | 'unknown';
  readonly programs?: Readonly<Record<string, string>>;
  readonly passwd?: string;
  readonly group?: string;
  readonly interfaces?: Partial<Record<InterfaceName, Outcome<number>>>;
}

export const ANN: Identity = { uid: 1000, gid: 1000, groups: [1000] };
export const healthyKvm: KvmAnswers = {
  apiVersion: 12,
  extensions: new Map(Array.from({ length: 300 }, (_, number) => [number, 1])),
  createVm: ok(undefined),
};

/** A healthy x86_64 machine with an Intel processor, seen by the user ann, who is in the group kvm. */
export function fakeHost(different: FakeHost = {}): DoctorHost {
  const { nodes, texts, openErrors, accessList, programs, passwd, group, interfaces, ...direct } = different;
  const accounts = accountsOfFiles(
    passwd ?? 'root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n',
    group ?? 'root:x:0:\nann:x:1000:\nkvm:x:104:ann\n',
  );
  const allNodes: Record<string, FileFacts | string> = {
    '/': kvmNode({ kind: 'folder', mode: 0o755, gid: 0 }),
    '/dev': kvmNode({ kind: 'folder', mode: 0o755, gid: 0 }),
    '/dev/kvm': kvmNode(),
    ...nodes,
  };
  const allTexts: Record<string, string> = {
    '/proc/cpuinfo': 'processor\t: 0\nflags\t\t: fpu vme vmx sse2\n',
    '/proc/meminfo': 'MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\nHugePages_Free: 0\nHugepagesize: 2048 kB\n',
    '/proc/self/limits': 'Max open files            1048576              1048576              files\n',
    '/proc/sys/kernel/osrelease': '6.1.0\n',
    ...texts,
  };
  const allPrograms: Record<string, string> = {
    setfacl: '/usr/bin/setfacl',
    'qemu-system-x86_64': '/usr/bin/qemu-system-x86_64',
    'apt-get': '/usr/bin/apt-get',
    ...programs,
  };
  return {
    arch: 'x86_64',
    env: {},
    identity: { ...ANN, groups: [1000, 104] },
    ...accounts,
    stat(path) {
      const node = allNodes[path] ?? 'ENOENT';
      return typeof node === 'string' ? refused(node) : ok(node);
    },
    readText: (path) => (allTexts[path] === undefined ? refused('ENOENT') : ok(allTexts[path])),
    open: (path) => (openErrors?.[path] === undefined ? ok(undefined) : refused(openErrors[path])),
    acl: () => accessList,
    program: (name) => allPrograms[name] || undefined,
    freeBytes: () => 2 ** 30,
    run: async ([program]) =>
      program?.includes('qemu') ? { code: 0, stdout: 'QEMU emulator version 8.2.1\n' } : { code: 0, stdout: '' },
    tryInterface: (name) => interfaces?.[name] ?? ok(0),
    tryVsockCid: () => ok(undefined),
    kvm: () => ok(healthyKvm),
    guestSpeed: async () => ok({ ring0Ratio: 1.2, ring3Ratio: 1 }),
    packageFacts: () => ({
      version: '1.2.3',
      platform: 'linux-x64-gnu',
      addon: { loaded: true, file: '/m/microvm.linux-x64-gnu.node', version: '1.2.3' },
      agent: '/m/microvm-agent',
    }),
    guestKernel: async () => ({
      image: '/k/vmlinuz',
      release: '6.1.0-cloud',
      source: 'cache',
      modules: '/k/modules',
      missingDrivers: undefined,
    }),
    ...direct,
  };
}

/** What the checks see of such a host. */
export function contextOf(different: FakeHost = {}, device = '/dev/kvm'): Promise<Context> {
  return prepare(fakeHost(different), device);
}
