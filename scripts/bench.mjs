// npm run bench [-- boot|ring3|fs|exec] [ROUNDS]: the benchmarks, in the lab where this machine's KVM is not native. In the lab
// instructions are counted, for times of an emulated machine mean nothing: 1 ms is a million instructions.
// File daemons are compared through a guest of the accelerator tcg, which is the same everywhere.
// Commands and copies are measured in a guest of each accelerator: here with tcg, and in the lab with kvm.
// Programs in ring 3 run natively on more hosts than guests with a kernel: that one runs here, too, where it can.

import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fail, setUp } from './set-up.mjs';
import { busyboxPath } from './set-up/busybox.mjs';
import { PROJECT, exists } from './set-up/folders.mjs';
import { BENCH_KERNEL } from './set-up/guest-kernel.mjs';
import { labQemu } from './set-up/lab-qemu.mjs';
import { VIRTIOFSD, toolPath } from './set-up/tools.mjs';

const LAB = { LAB_ICOUNT: '1', LAB_TIMEOUT: '3600' };

/**
 * Runs a benchmark, which prints its figures as JSON, and keeps them.
 * @param {string} name
 * @param {string[]} command
 * @param {NodeJS.ProcessEnv} [env]
 */
function measure(name, [file, ...args], env = {}) {
  const { status, stdout } = spawnSync(file, args, {
    cwd: PROJECT,
    encoding: 'utf8',
    env: { ...env, ...process.env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  // A target that is missed is a failure, and its figures are worth keeping.
  if (status !== 0) process.exitCode = status ?? 1;
  if (stdout === '') return;
  const folder = join(PROJECT, 'bench/results');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${name}.json`), stdout);
  console.log(`Written to bench/results/${name}.json`);
}

/** @param {string[]} words */
function boot(words) {
  measure('boot', ['lab/run', join(PROJECT, 'node_modules/.bin/node'), 'bench/boot.ts', ...words], LAB);
}

/** @param {string[]} words */
async function ring3(words) {
  const build = ['build', '--release', '--locked', '--package', 'microvm-ring3-linux', '--example', 'bench'];
  const { status } = spawnSync('cargo', build, { cwd: PROJECT, stdio: 'inherit' });
  if (status !== 0) throw new Error('The benchmark cannot be built');
  const program = [join(PROJECT, 'target/release/examples/bench'), ...words];
  const env = { MICROVM_BENCH_BUSYBOX: await busyboxPath() };
  if (exists('/dev/kvm')) measure('ring3', program, env);
  measure('ring3-lab', ['lab/run', ...program], { ...env, ...LAB });
}

/** @param {string[]} words */
async function fs(words) {
  await setUp({ only: ['bench-kernel', 'lab-qemu', 'virtiofsd'] });
  const script = [join(PROJECT, 'bench/fs.ts'), join(BENCH_KERNEL.folder, 'current'), toolPath(VIRTIOFSD), ...words];
  // Under Debian 12's QEMU a guest of Linux 6.12 ended once by corrupted flags; the newer one is the safer choice.
  measure('fs', [join(PROJECT, 'node_modules/.bin/node'), ...script], { MICROVM_QEMU: labQemu() });
}

/** @param {string[]} words */
function exec(words) {
  const [node, script] = [join(PROJECT, 'node_modules/.bin/node'), 'bench/exec.ts'];
  measure('exec', [node, script, 'tcg', ...words]);
  // Not with counted instructions, which leave it a single processor: host and guest work at the same time.
  measure('exec-lab', ['lab/run', node, script, 'kvm', ...words], { LAB_TIMEOUT: LAB.LAB_TIMEOUT });
}

try {
  await setUp();
  const [first = 'boot', ...rest] = process.argv.slice(2);
  if (first === 'ring3') await ring3(rest);
  else if (first === 'fs') await fs(rest);
  else if (first === 'exec') exec(rest);
  else if (first === 'boot') boot(rest);
  else boot([first, ...rest]);
} catch (error) {
  fail(error);
}
