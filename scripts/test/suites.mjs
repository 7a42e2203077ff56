// The test suites: how each is run and how its tests are counted.

import { spawn } from 'node:child_process';
import { delimiter, dirname, join } from 'node:path';
import { PROJECT, exists } from '../set-up/folders.mjs';
import { VIRTIOFSD, toolPath } from '../set-up/tools.mjs';
import { countCargoTests } from './cargo-results.mjs';
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
    MICROVM_TEST_VIRTIOFSD: toolPath(VIRTIOFSD),
    // A test that finds something missing is a failure, but nobody can do without KVM's device.
    ...(exists('/dev/kvm') ? { MICROVM_TEST_REQUIRE_ALL: '1' } : {}),
    ...more,
  };
  const child = spawn(file, args, { cwd: PROJECT, env, stdio: ['ignore', 'pipe', 'inherit'] });
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

/** The Rust tests of all crates. */
export async function runCargoTests() {
  let output = '';
  const status = await runWith(['cargo', 'test', '--workspace', '--locked', '--no-fail-fast'], (text) => {
    output += text;
    process.stdout.write(text);
  });
  return outcome('cargo test', status, countCargoTests(output));
}

/** Crates whose tests make machines: these run once more where KVM is native. */
const MACHINE_CRATES = ['kvm', 'vmm'];

/**
 * The tests of the crates that use KVM, where KVM is native or else in the lab.
 * @param {{seconds: number}} options
 */
export async function runRustOnKvm({ seconds }) {
  const name = 'cargo test on KVM';
  const packages = MACHINE_CRATES.flatMap((crate) => ['--package', `microvm-${crate}`]);
  let messages = '';
  const built = await runWith(
    ['cargo', 'test', '--no-run', '--locked', '--quiet', '--message-format=json', ...packages],
    (text) => (messages += text),
  );
  if (built !== 0) return outcome(name, built, { passed: 0, failed: 0, skipped: 0 });

  const script = testExecutables(messages).map(
    ({ folder, executable }) => `(cd '${folder}' && '${executable}') || status=1`,
  );
  let output = '';
  const command = ['lab/run', 'bash', '-c', ['status=0', ...script, 'exit $status'].join('\n')];
  const status = await runWith(
    command,
    (text) => {
      output += text;
      process.stdout.write(text);
    },
    { LAB_TIMEOUT: String(seconds) },
  );
  return outcome(name, status, countCargoTests(output));
}

/**
 * The test programs that cargo built, each with the folder that it runs them in.
 * @param {string} messages of `cargo test --message-format=json`
 */
function testExecutables(messages) {
  return messages
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
    .filter(({ reason, profile, executable }) => reason === 'compiler-artifact' && profile.test && executable)
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
  reader.end();
  const { passed, failed, skipped, complete } = reader.counts;
  // Without its closing plan the report is not whole, whatever the exit status says.
  return outcome(name, complete ? status : status || 1, { passed, failed, skipped });
}

/**
 * The TypeScript tests that run on any machine.
 * @param {string[]} [files] these only
 */
export function runAva(files = []) {
  return runTap('ava', ['ava', '--tap', ...files]);
}

/**
 * The end-to-end tests of the kvm accelerator, where KVM is native or else in the lab.
 * @param {{seconds: number, env?: NodeJS.ProcessEnv}} options
 */
export function runKvmTests({ seconds, env = {} }) {
  if (!exists(join(PROJECT, '__test__/e2e-kvm'))) {
    return { name: 'ava in the lab', passed: 0, failed: 0, skipped: 0 };
  }
  return runTap('ava in the lab', ['lab/run', 'node_modules/.bin/ava', '--config', 'ava.kvm.config.mjs', '--tap'], {
    LAB_TIMEOUT: String(seconds),
    ...env,
  });
}
