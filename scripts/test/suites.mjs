// The test suites: how each is run and how its tests are counted.

import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, delimiter, dirname, join } from 'node:path';
import { isKvmNative } from '../../lab/native-kvm.mjs';
import { BUSYBOX } from '../set-up/busybox.mjs';
import { PROJECT, exists } from '../set-up/folders.mjs';
import { labQemu } from '../set-up/lab-qemu.mjs';
import { formatTime } from '../set-up/report.mjs';
import { PJDFSTEST, VIRTIOFSD, toolPath } from '../set-up/tools.mjs';
import { countCargoTests } from './cargo-results.mjs';
import { inLanes } from './lanes.mjs';
import { tapReader } from './tap.mjs';

/** @typedef {{name: string, passed: number, failed: number, skipped: number}} Outcome */

/**
 * Gives the exit status; the text of stdout goes to `read`, stderr to the terminal.
 * @param {string[]} command
 * @param {(text: string) => void} read
 * @param {NodeJS.ProcessEnv} [more]
 */
export async function runWith([file, ...args], read, more = {}) {
  const env = {
    ...process.env,
    PATH: `${join(PROJECT, 'node_modules/.bin')}${delimiter}${process.env.PATH}`,
    MICROVM_TEST_BUSYBOX: BUSYBOX,
    MICROVM_TEST_VIRTIOFSD: toolPath(VIRTIOFSD),
    MICROVM_TEST_PJDFSTEST: toolPath(PJDFSTEST),
    MICROVM_TEST_QEMU: labQemu(),
    // What Node has compiled once serves every test process, those in the lab too, which see the same files.
    NODE_COMPILE_CACHE: join(PROJECT, 'target/node-compile-cache'),
    // A test that finds something missing is a failure, but nobody can do without KVM's device.
    ...(exists('/dev/kvm') ? { MICROVM_TEST_REQUIRE_ALL: '1' } : {}),
    ...more,
  };
  // setpriv: it ends with us, even when we are killed, and a lab's machine ends with it.
  const command = ['--pdeathsig', 'TERM', '--', file, ...args];
  const child = spawn('setpriv', command, { cwd: PROJECT, env, stdio: ['ignore', 'pipe', 'inherit'] });
  child.stdout.setEncoding('utf8').on('data', read);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 128));
  });
}

/**
 * A runner that fails without a failed test (it crashed, or did not compile) counts as one.
 * @param {string} name
 * @param {number} status
 * @param {{passed: number, failed: number, skipped: number}} counts
 * @returns {Outcome}
 */
function outcome(name, status, counts) {
  const crashed = status !== 0 && counts.failed === 0;
  if (crashed) console.log(`  ✗ the runner of ${name} ended with ${status}`);
  return { name, ...counts, failed: counts.failed + (crashed ? 1 : 0) };
}

/**
 * The Rust tests of all crates, or of those that are named, where the soak runs them: optimized, with its numbers of rounds.
 * @param {string[]} [crates] without their prefix
 */
export async function runCargoTests(crates) {
  let output = '';
  const read = (text) => {
    output += text;
    process.stdout.write(text);
  };
  const which = crates ? ['--release', ...packagesOf(crates)] : ['--workspace'];
  const env = crates ? { MICROVM_SOAK: '1' } : {};
  const status = await runWith(['cargo', 'test', '--locked', '--no-fail-fast', ...which], read, env);
  return outcome('cargo test', status, countCargoTests(output));
}

/** @param {string[]} crates */
function packagesOf(crates) {
  return crates.flatMap((crate) => ['--package', `microvm-${crate}`]);
}

/** The exit status of `lab/run` after LAB_TIMEOUT. */
const OUT_OF_TIME = 124;
const ATTEMPTS = 2;

/**
 * How many labs run side by side, and what their machines have: a processor of its own for each, as emulated ones that
 * share a real one wait for each other more than they work. Where the tests run on the machine's own KVM, one after
 * the other.
 * @returns {Promise<{lanes: number, machine: NodeJS.ProcessEnv}>}
 */
async function labs() {
  if ((await isKvmNative()) || availableParallelism() < 2) return { lanes: 1, machine: {} };
  return { lanes: 2, machine: { LAB_CPUS: '1' } };
}

/**
 * Runs a suite in the lab. An emulated processor may freeze with all that runs on it, as old ones of QEMU do: then the
 * suite starts anew, once, and only the last run counts. What hangs by itself does so again, and fails.
 * @param {string[]} command
 * @param {number} seconds
 * @param {NodeJS.ProcessEnv} env
 * @param {(status: number, output: string) => Outcome} judge
 */
async function runInLab(command, seconds, env, judge) {
  for (let attempt = 1; ; attempt += 1) {
    let output = '';
    const read = (text) => (output += text);
    const limits = { LAB_TIMEOUT: String(seconds), ...env };
    const status = await runWith(['lab/run', ...command], read, limits);
    if (status !== OUT_OF_TIME || attempt === ATTEMPTS) return judge(status, output);
    console.log('\n  the lab hung or took too long: once more, in a new one');
  }
}

/** @param {string} name @param {Outcome[]} outcomes @returns {Outcome} */
function sum(name, outcomes) {
  const total = { name, passed: 0, failed: 0, skipped: 0 };
  for (const { passed, failed, skipped } of outcomes) {
    total.passed += passed;
    total.failed += failed;
    total.skipped += skipped;
  }
  // A suite that ran nothing shows nothing.
  return total.passed + total.failed === 0 ? { ...total, failed: 1 } : total;
}

/** Test programs that take a host for machines: these run once more where KVM is native. All others do without it. */
const MACHINE_TESTS = {
  kvm: ['guest'],
  ring3: ['platform'],
  'ring3-linux': ['programs'],
  vmm: ['machine'],
  vsock: ['af_vsock'],
};
/**
 * The folders of the end-to-end tests of the kvm accelerator: those of `npm test`; those that show what others show already,
 * on tcg or without a guest, for CI; and those that take long, for the soak.
 */
export const KVM_TESTS = {
  first: '__test__/e2e-kvm',
  more: '__test__/e2e-kvm/more',
  long: '__test__/e2e-kvm/long',
};

/**
 * The tests of the crates that use KVM, where KVM is native or else in the lab.
 * @param {{seconds: number, crates?: string[], env?: NodeJS.ProcessEnv}} options
 */
export async function runRustOnKvm({ seconds, crates = Object.keys(MACHINE_TESTS), env = {} }) {
  const name = 'cargo test on KVM';
  let messages = '';
  const built = await runWith(
    ['cargo', 'test', '--no-run', '--locked', '--quiet', '--message-format=json', ...packagesOf(crates)],
    (text) => (messages += text),
  );
  if (built !== 0) return outcome(name, built, { passed: 0, failed: 0, skipped: 0 });

  const { lanes, machine } = await labs();
  const outcomes = await inLanes(testExecutables(messages), lanes, ({ folder, executable }) => {
    const command = ['bash', '-c', `cd '${folder}' && exec '${executable}'`];
    const judge = (status, output) => {
      process.stdout.write(output);
      return outcome(name, status, countCargoTests(output));
    };
    return runInLab(command, seconds, { ...machine, MICROVM_TEST_REQUIRE_LINUX: '1', ...env }, judge);
  });
  return sum(name, outcomes);
}

/**
 * The test programs that cargo built and that make machines, each with the folder that it runs them in.
 * @param {string} messages of `cargo test --message-format=json`
 */
function testExecutables(messages) {
  return messages
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
    .filter(({ reason, profile, executable }) => reason === 'compiler-artifact' && profile.test && executable)
    .filter(({ target, manifest_path: manifest }) => MACHINE_TESTS[basename(dirname(manifest))]?.includes(target.name))
    .map(({ executable, manifest_path: manifest }) => ({ executable, folder: dirname(manifest) }));
}

/**
 * @param {string} name
 * @param {string[]} command
 * @param {NodeJS.ProcessEnv} [env]
 */
async function runTap(name, command, env) {
  const reader = tapReader((line) => console.log(line));
  const status = await runWith(command, (text) => reader.write(text), env);
  return tapOutcome(name, status, reader);
}

/**
 * @param {string} name
 * @param {number} status
 * @param {ReturnType<typeof tapReader>} reader what has read the whole report
 */
function tapOutcome(name, status, reader) {
  reader.end();
  const { passed, failed, skipped, complete } = reader.counts;
  // Without its closing plan the report is not whole, whatever the exit status says.
  return outcome(name, complete ? status : status || 1, { passed, failed, skipped });
}

/**
 * The TypeScript tests that run on any machine.
 * @param {string[]} [files] these only
 * @param {NodeJS.ProcessEnv} [env]
 */
export function runAva(files = [], env = {}) {
  return runTap('ava', ['ava', '--tap', ...files], env);
}

/** Mounts against the file systems beneath them. */
export function runFileSystemTests() {
  // Under Debian 12's QEMU a guest of Linux 6.12 ended once by corrupted flags; the newer one is the safer choice.
  const env = { MICROVM_QEMU: labQemu() };
  return runTap('file systems', ['ava', '--config', 'ava.long.config.mjs', '--tap'], env);
}

/** So many files share a lab: starting one takes as long as a short file. */
const FILES_A_LAB = 2;
/** What takes longest begins first, so that no lab works alone at the end. */
const LONGEST = 'rounds.test.ts';

/**
 * The end-to-end tests of the kvm accelerator, where KVM is native or else in the lab.
 * @param {{seconds: number, folders?: string[], env?: NodeJS.ProcessEnv}} options
 */
export async function runKvmTests({ seconds, folders = [KVM_TESTS.first], env = {} }) {
  const name = 'ava on KVM';
  const files = folders.flatMap((folder) =>
    readdirSync(join(PROJECT, folder))
      .filter((file) => file.endsWith('.test.ts'))
      .toSorted((a, b) => Number(b === LONGEST) - Number(a === LONGEST))
      .map((file) => join(folder, file)),
  );
  const groups = [];
  while (files.length > 0) groups.push(files.splice(0, FILES_A_LAB));
  const { lanes, machine } = await labs();
  const outcomes = await inLanes(groups, lanes, (group) => {
    const names = group.map((file) => basename(file, '.test.ts')).join(', ');
    const command = ['node_modules/.bin/ava', '--config', 'ava.kvm.config.mjs', '--tap', ...group];
    const started = performance.now();
    const judge = (status, output) => {
      console.log(`  ${names} (${formatTime(performance.now() - started)})`);
      const reader = tapReader((line) => console.log(line));
      reader.write(output);
      return tapOutcome(`${name}: ${names}`, status, reader);
    };
    return runInLab(command, seconds, { ...machine, ...env }, judge);
  });
  return sum(name, outcomes);
}
