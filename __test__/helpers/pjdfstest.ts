// pjdfstest: what POSIX says of files, asked of a file system of this host or of a guest's.

import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { MicroVM } from '../../index.ts';

/** The program; it is static. */
export const PJDFSTEST: string = process.env['MICROVM_TEST_PJDFSTEST'] ?? 'pjdfstest (npm run soak -- fs builds it)';

/** What came of a test, and the words with it where it is not 'ok'. */
export interface Verdict {
  readonly outcome: 'ok' | 'skipped' | 'FAILED';
  readonly words: string;
}

/** By the name of the test. */
export type Verdicts = ReadonlyMap<string, Verdict>;

/**
 * What Linux has of it. The naps are longer than a tick of the kernel's, by which files get their times; remounting
 * would be this host's own file system's.
 */
export const CONFIGURATION = `
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.02
allow_remount = false

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
`;

/**
 * They compare times of a file: where the guest delays writes it keeps the times itself, by its own clock, but new files
 * have the host's. While its clock is behind the host's, time runs backwards.
 */
export const BY_GUESTS_CLOCK: readonly string[] = ['rename::changed_ctime_success::regular', 'utimensat::utime_now'];

/** Another file system than the tested one, here and in a guest: in memory. */
const SECOND = '/dev/shm';

/** Runs all tests in a folder of this host. */
export async function pjdfstestHere(folder: string): Promise<Verdicts> {
  const own = await mkdtemp(join(SECOND, 'microvm-test-'));
  try {
    const configuration = join(own, 'configuration');
    await writeFile(configuration, CONFIGURATION);
    const args = ['-c', configuration, '-p', folder, '-s', own];
    const output = await new Promise<string>((resolve, reject) => {
      execFile(PJDFSTEST, args, { maxBuffer: 1 << 26 }, (error, stdout, stderr) =>
        // 1 is a test that failed.
        error === null || error.code === 1 ? resolve(stdout) : reject(new Error(`${error.message}: ${stderr}`)),
      );
    });
    return readVerdicts(output);
  } finally {
    await rm(own, { recursive: true });
  }
}

/** Makes a folder that the tests' users get into. */
export async function testFolder(parent: string, name: string): Promise<string> {
  const folder = join(parent, name);
  await mkdir(folder, { recursive: true });
  await chmod(parent, 0o755);
  await chmod(folder, 0o755);
  return folder;
}

/** What else a guest of the default userland needs to run them: users by this host's names, and the configuration. */
export async function prepareGuest(vm: MicroVM): Promise<void> {
  await vm.fs.writeFile('/tmp/configuration', CONFIGURATION);
  await vm.fs.appendFile('/etc/passwd', 'daemon:x:1:1:daemon:/:/bin/false\n');
  await vm.fs.appendFile('/etc/group', 'daemon:x:1:\n');
}

/** Runs all tests in a folder of a guest, where `program` is mounted. */
export async function pjdfstestInGuest(vm: MicroVM, program: string, folder: string): Promise<Verdicts> {
  const args = ['-c', '/tmp/configuration', '-p', folder, '-s', SECOND];
  const { stdout, stderr, exitCode } = await vm.exec(program, args, { reject: false });
  if (exitCode !== 0 && exitCode !== 1) throw new Error(`pjdfstest in the guest ended with ${exitCode}: ${stderr}`);
  return readVerdicts(stdout);
}

/** Reads the report; its own sums must be those of what was read. */
export function readVerdicts(output: string): Verdicts {
  const verdicts = new Map<string, Verdict>();
  let last = '';
  for (const line of output.split('\n')) {
    const [, name, outcome] = /^([\w:]+) +(ok|skipped|FAILED)$/.exec(line) ?? [];
    const before = verdicts.get(last);
    if (name !== undefined) {
      last = name;
      verdicts.set(name, { outcome: outcome as Verdict['outcome'], words: '' });
    } else if (line.startsWith('\t') && before !== undefined) {
      verdicts.set(last, { ...before, words: `${before.words} ${line.trim()}`.trim() });
    }
  }
  const count = (outcome: Verdict['outcome']): number =>
    [...verdicts.values()].filter((verdict) => verdict.outcome === outcome).length;
  const [failed, skipped, ok] = [count('FAILED'), count('skipped'), count('ok')];
  const sums = `${failed} failed, ${skipped} skipped, ${ok} passed, 0 expected failures, ${verdicts.size} total`;
  if (!output.includes(sums)) throw new Error(`The report of pjdfstest does not say "${sums}":\n${output}`);
  return verdicts;
}

/** What of the guest's is worse than this host's, and how. */
export function worse(guest: Verdicts, host: Verdicts): { readonly test: string; readonly how: string }[] {
  return [...host].flatMap(([test, here]) => {
    const there = guest.get(test);
    if (there === undefined) return [{ test, how: 'not run' }];
    if (there.outcome === 'ok' || there.outcome === here.outcome || here.outcome === 'FAILED') return [];
    return [{ test, how: `${there.outcome}: ${there.words}` }];
  });
}

/** The numbers, for a log. */
export function counts(verdicts: Verdicts): string {
  const all = [...verdicts.values()].map(({ outcome }) => outcome);
  const of = (which: Verdict['outcome']): number => all.filter((outcome) => outcome === which).length;
  return `${of('ok')} ok, ${of('FAILED')} failed, ${of('skipped')} skipped`;
}
