// Everything that the doctor asks about a host. Checks see the host through this alone, so that tests can make up any.
// The real one is src/doctor/inspect-host.ts and inspect-all.ts.

import type { PackageFacts } from '../native.ts';

/** An answer, or the errno name of the refusal. */
export type Outcome<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly errno: string };

/** What a path leads to. */
export interface FileFacts {
  readonly kind: 'character device' | 'file' | 'folder' | 'socket' | 'other';
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** One line of an access control list; `id` with named users and groups only. */
export interface AclEntry {
  readonly tag: 'owner' | 'user' | 'owning-group' | 'group' | 'mask' | 'other';
  readonly id: number | undefined;
  /** 4 read, 2 write, 1 execute. */
  readonly permissions: number;
}

/** A user as the database has it. */
export interface Account {
  readonly name: string;
  readonly gid: number;
}

/** Whose rights count. */
export interface Identity {
  /** The effective user. */
  readonly uid: number;
  /** The effective group. */
  readonly gid: number;
  readonly groups: readonly number[];
}

/** What the KVM device says of itself. */
export interface KvmAnswers {
  /** The API version, or why the device cannot be asked. */
  readonly apiVersion: number;
  /** `KVM_CHECK_EXTENSION` by number. */
  readonly extensions: ReadonlyMap<number, number>;
  /** Creating an empty machine. */
  readonly createVm: Outcome<void>;
}

/** Guest code against the same code on the host; 1 is the same speed, higher is slower. */
export interface SpeedFacts {
  readonly ring0Ratio: number;
  readonly ring3Ratio: number | undefined;
}

/** A program's end. */
export interface Ran {
  readonly code: number | undefined;
  readonly stdout: string;
}

/** A kernel for guests. */
export interface KernelFacts {
  readonly image: string;
  readonly release: string | undefined;
  readonly source: string;
  /** Folder with its modules; undefined where everything has to be built in. */
  readonly modules: string | undefined;
  /** Why the modules will not do. */
  readonly missingDrivers: string | undefined;
}

/** A kernel that was not found, or is none. */
export interface KernelFailure {
  readonly code: string;
  readonly message: string;
  readonly hint: string | undefined;
}

/** Interfaces of the kernel that are found out about by trying. */
export type InterfaceName = 'userfaultfd' | 'io_uring' | 'memfd_hugetlb' | 'landlock' | 'af_vsock';

/** What every look at the KVM device needs: quick, and without the addon where it has to be. */
export interface Host {
  /** As the kernel names it: `x86_64`, `aarch64`. */
  readonly arch: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** This process. */
  readonly identity: Identity;

  stat(path: string): Outcome<FileFacts>;
  readText(path: string): Outcome<string>;
  /** Opens for reading and writing, and closes again. */
  open(path: string): Outcome<void>;

  account(uid: number): Account | undefined;
  groupName(gid: number): string | undefined;
  /** The groups that a user has after a new login. */
  groupsOf(account: Account): readonly number[];
  /** The access control list; undefined where there is none, `'unknown'` where it cannot be asked for. */
  acl(path: string): readonly AclEntry[] | undefined | 'unknown';

  /** The path of a program, looked for in PATH and where root's programs are. */
  program(name: string): string | undefined;
}

/** What the whole diagnosis needs besides. What takes the addon is undefined where there is none. */
export interface DoctorHost extends Host {
  /** Free bytes of the file system at a path. */
  freeBytes(path: string): number | undefined;
  /** Runs a program for at most five seconds; undefined where it cannot be run. */
  run(argv: readonly string[]): Promise<Ran | undefined>;

  /** Tries an interface of the kernel. */
  tryInterface(name: InterfaceName): Outcome<number> | undefined;
  /** Takes a vsock context ID and gives it back. */
  tryVsockCid(device: string, cid: number): Outcome<void> | undefined;
  /** Asks a KVM device. An error of the addon is told by its errno name, or by its code. */
  kvm(device: string, extensions: readonly number[]): Outcome<KvmAnswers> | undefined;
  /** Measures, once per process and device. */
  guestSpeed(device: string): Promise<Outcome<SpeedFacts> | undefined>;
  packageFacts(): PackageFacts;
  guestKernel(): Promise<KernelFacts | KernelFailure>;
}
