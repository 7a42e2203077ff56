// lab/run: chooses where the command runs, runs it there, and ends with its status.

import { spawn } from 'node:child_process';
import { parseArgs } from 'node:util';
import { SetUpError } from '../scripts/set-up/report.mjs';
import { runNested } from './nested.mjs';
import { isKvmNative } from './native-kvm.mjs';

const USAGE = `Usage: lab/run [--user] [--] CMD [ARG…]

Runs CMD where /dev/kvm runs guests natively: here if this machine can (that is measured), and otherwise
as root in a machine that QEMU emulates, with AMD's virtualization and this machine's files under their own paths.
Nothing that CMD writes there lasts. The exit status is CMD's; stdout and stderr stay apart; stdin is empty.

  --user      run CMD as an ordinary user who may open /dev/kvm
  -h, --help  this text

Environment
  LAB=nested|native    do not measure where to run
  LAB_MEMORY=6144      MiB of memory of the emulated machine
  LAB_CPUS=2           its processors
  LAB_CPU=EPYC,+svm,+npt  its processor model
  LAB_KVM_AMD=         parameters of the module kvm_amd, such as npt=0 for shadow paging
  LAB_ICOUNT=1         count instructions instead of time: figures repeat, one thread runs all processors
  LAB_TIMEOUT=900      seconds until the command is given up (exit status 124)
  LAB_VERBOSE=1        show the kernel's console

Exit status: CMD's; 124 after LAB_TIMEOUT; 125 when the lab itself failed; 128 + signal when the lab was stopped.
`;

/** Options end where the command begins. @param {string[]} args */
function parseCommandLine(args) {
  const end = args.findIndex((arg) => arg === '--' || !arg.startsWith('-'));
  const options = end === -1 ? args : args.slice(0, end);
  const { values } = parseArgs({
    args: options,
    options: { user: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
  });
  const command = end === -1 ? [] : args.slice(args[end] === '--' ? end + 1 : end);
  return { ...values, command };
}

/** @param {string[]} command */
async function runHere([file, ...args]) {
  const child = spawn(file, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']))
    process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 128));
  });
}

async function main() {
  let options;
  try {
    options = parseCommandLine(process.argv.slice(2));
  } catch (error) {
    console.error(`lab: ${error.message}\n\n${USAGE}`);
    return 125;
  }
  if (options.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  if (options.command.length === 0) {
    console.error(`lab: no command given\n\n${USAGE}`);
    return 125;
  }
  const asUser = new URL('as-user', import.meta.url).pathname;
  const command = options.user ? [asUser, ...options.command] : options.command;
  return (await isKvmNative()) ? runHere(command) : runNested(command);
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`lab: ${error instanceof SetUpError ? error.message : (error?.stack ?? error)}`);
  if (error?.hint) console.error(`hint: ${error.hint}`);
  process.exitCode = 125;
}
