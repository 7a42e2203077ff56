// A broken host for real: /dev and /etc of a mount namespace, which end with it, and a user in it.

import { execFile, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import type { DoctorReport } from '../../src/doctor/doctor.ts';
import { inspectHost } from '../../src/doctor/inspect-host.ts';
import type { Check, Problem } from '../../src/doctor/model.ts';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));

/** What is broken, as shell lines run by root in the namespace. */
export interface Patient {
  /** Makes `kvm` in the current folder, which becomes /dev. */
  readonly device: string;
  /** The line of the group 54321 in /etc/group. */
  readonly group?: string;
  /** The name of user 12345; undefined for one without an entry. */
  readonly user?: string | undefined;
  /** Who asks, as options of setpriv. Root where there are none. */
  readonly who?: readonly string[];
  /** Anything else. */
  readonly also?: string;
}

export interface Answer {
  readonly report: DoctorReport;
  readonly failure: { readonly code: string; readonly hint?: string } | undefined;
}

/** What the doctor said before and after its commands were run. */
export interface Treatment {
  readonly before: Answer;
  readonly ran: readonly { readonly status: number; readonly stderr: string }[];
  readonly after: Answer;
}

/** The user without any group but his own. */
export const USER: readonly string[] = ['setpriv', '--reuid', '12345', '--regid', '12345', '--clear-groups'];
/** The same, whose process has the device's group. */
export const MEMBER: readonly string[] = ['setpriv', '--reuid', '12345', '--regid', '12345', '--groups', '54321'];

const SETUP = `
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/project /mnt/home /mnt/dev
mount --bind "$PROJECT" /mnt/project
touch /mnt/node
mount --bind "$NODE" /mnt/node
cp -a /etc /mnt/etc
sed -i '/^[^:]*:[^:]*:12345:/d' /mnt/etc/passwd
if [ -n "$USER_NAME" ]; then
  printf '%s:x:12345:12345::/mnt/home:/bin/sh\\n' "$USER_NAME" >> /mnt/etc/passwd
fi
grep -v -e '^kvm:' -e '^[^:]*:[^:]*:54321:' /etc/group > /mnt/etc/group
printf '%s\\n' "$GROUP_LINE" >> /mnt/etc/group
mount --bind /mnt/etc /etc
chmod 755 /mnt /mnt/dev
cd /mnt/dev
mknod -m 666 null c 1 3
mknod -m 666 urandom c 1 9
ln -s /proc/self/fd fd
eval "$DEVICE"
mount --bind /mnt/dev /dev
eval "$ALSO"
exec "$@"
`;

/** Asks the doctor, does as it says, asks again. */
export async function treat(patient: Patient): Promise<Treatment> {
  const { who = ['env'] } = patient;
  const fixtures = ['doctor-patient.ts', 'doctor-report.ts'].map((name) => `/mnt/project/__test__/fixtures/${name}`);
  const { stdout, stderr, exitCode } = await runIn(patient, ['/mnt/node', ...fixtures, ...who]);
  if (exitCode !== 0) throw new Error(`The patient could not be examined (${exitCode}): ${stderr}`);
  return JSON.parse(stdout) as Treatment;
}

/** Runs `microvm doctor` there, as `who`. */
export function doctorIn(patient: Patient, args: readonly string[], input = ''): Promise<Finished> {
  const { who = [] } = patient;
  return runIn(patient, [...who, '/mnt/node', '/mnt/project/src/cli/main.ts', 'doctor', ...args], input);
}

interface Finished {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number | null;
}

function runIn(patient: Patient, words: readonly string[], input = ''): Promise<Finished> {
  const { device, group = 'kvm:x:54321:', also = '' } = patient;
  const env = {
    ...process.env,
    SUDO_UID: undefined,
    PKEXEC_UID: undefined,
    PROJECT,
    NODE: process.execPath,
    DEVICE: device,
    GROUP_LINE: group,
    USER_NAME: 'user' in patient ? (patient.user ?? '') : 'tester',
    ALSO: also,
  };
  const unshare = ['--mount', '--propagation', 'private', 'sh', '-c', SETUP, 'sh', ...words];
  return new Promise((resolve) => {
    const child = execFile('unshare', unshare, { env, maxBuffer: 2 ** 24 }, (_error, stdout, stderr) =>
      resolve({ stdout, stderr, exitCode: child.exitCode }),
    );
    child.stdin?.end(input);
  });
}

/** Whether this machine has a KVM device that opens. */
export function hasKvm(): boolean {
  return inspectHost().open('/dev/kvm').ok;
}

/** Whether an ordinary user may make user namespaces here. */
export function hasUserNamespaces(): boolean {
  const [file = '', ...args] = [...USER, 'unshare', '--user', '--map-root-user', 'true'];
  return spawnSync(file, args).status === 0;
}

/** A check of a report. */
export function checkOf({ report }: Answer, id: string): Check | undefined {
  return report.sections.flatMap(({ checks }): readonly Check[] => checks).find((check) => check.id === id);
}

/** The problems with KVM, but for its speed, which is the machine's own affair. */
export function kvmProblems({ report }: Answer): readonly Problem[] {
  return report.sections
    .filter(({ title }) => title === 'KVM')
    .flatMap(({ problems }) => problems)
    .filter(({ id }) => id !== 'kvm-emulated');
}

/** Why such tests cannot be run here; undefined where they can. */
export function untreatable(): string | undefined {
  if (process.getuid?.() !== 0) return 'making device nodes and mount namespaces takes root';
  const made = 'mount -t tmpfs tmpfs /mnt && mknod /mnt/null c 1 3 && echo >/mnt/null';
  if (spawnSync('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', made]).status !== 0) {
    return 'mount namespaces with device nodes are not permitted here';
  }
  // The doctor would install it, and that is the machine's own affair.
  if (spawnSync('setfacl', ['--version']).status !== 0) return 'setfacl is not installed (package acl)';
  return undefined;
}
