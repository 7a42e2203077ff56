// The emulated machine: QEMU as its processor, this machine's files as its root, a command as its whole purpose.
//
// Three virtio-serial ports lead out of it: the command's stdout, its stderr and its exit status.
// The kernel's console is kept for the report of a failure.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { totalmem, tmpdir } from 'node:os';
import { join } from 'node:path';
import { isInstalled } from '../scripts/set-up/commands.mjs';
import { RUN_PACKAGES, installPackages } from '../scripts/set-up/debian-packages.mjs';
import { CACHE } from '../scripts/set-up/folders.mjs';
import { LAB_KERNEL, fetchKernel, releaseOf } from '../scripts/set-up/guest-kernel.mjs';
import { fetchLabQemu, labQemu } from '../scripts/set-up/lab-qemu.mjs';
import { makeInitramfs } from './initramfs.mjs';
import { sessionScript } from './session.mjs';
import { unpackedKernel } from './vmlinux.mjs';

const CURRENT = join(LAB_KERNEL.folder, 'current');
const CONSOLE_TAIL = 8000;
/** The emulator lacks some features of the processor model; nobody here needs them. */
const MISSING_FEATURES = /.*warning: TCG doesn't support requested feature.*\n/g;

/**
 * @typedef {object} LabSettings
 * @property {number} memory MiB
 * @property {number} cpus
 * @property {string} cpu
 * @property {boolean} icount
 * @property {number} timeout seconds
 * @property {boolean} verbose
 */

/** @returns {LabSettings} */
function settings() {
  const env = process.env;
  // Half of a small machine is left to the machine itself.
  const memory = Math.min(6144, Math.floor(totalmem() / (2 << 20)));
  return {
    memory: Number(env.LAB_MEMORY || memory),
    cpus: Number(env.LAB_CPUS || 2),
    cpu: env.LAB_CPU || 'EPYC,+svm,+npt',
    icount: env.LAB_ICOUNT === '1',
    timeout: Number(env.LAB_TIMEOUT || 900),
    verbose: env.LAB_VERBOSE === '1',
  };
}

/**
 * QEMU's arguments; descriptors 3, 4 and 5 of the process take stdout, stderr and the exit status.
 * @param {LabSettings} lab
 * @param {string} kernel
 * @param {string} initramfs
 * @param {string} script
 */
function qemuArguments({ memory, cpus, cpu, icount }, kernel, initramfs, script) {
  const port = (name, fd) => [
    ...['-chardev', `socket,id=${name},fd=${fd}`],
    ...['-device', `virtserialport,chardev=${name},name=lab.${name}`],
  ];
  const accelerator = icount
    ? ['-accel', 'tcg,thread=single,tb-size=512', '-icount', 'shift=0,sleep=off']
    : ['-accel', 'tcg,thread=multi,tb-size=512'];
  return [
    ...['-M', 'q35', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...accelerator,
    ...['-cpu', cpu, '-smp', String(cpus), '-m', String(memory)],
    ...['-kernel', kernel, '-initrd', initramfs],
    ...['-append', `console=ttyS0 reboot=t panic=-1 quiet loglevel=3 lab.session=${script}`],
    ...['-serial', 'stdio'],
    ...['-fsdev', 'local,id=root,path=/,security_model=none,readonly=on,multidevs=remap'],
    ...['-device', 'virtio-9p-pci,fsdev=root,mount_tag=lab-root'],
    ...['-device', 'virtio-rng-pci', '-device', 'virtio-serial-pci'],
    ...port('stdout', 3),
    ...port('stderr', 4),
    ...port('status', 5),
  ];
}

/**
 * Runs the command in a machine of its own; gives its exit status.
 * @param {string[]} command
 */
export async function runNested(command) {
  if (!isInstalled('qemu-system-x86_64')) await installPackages({ 'qemu-system-x86': RUN_PACKAGES['qemu-system-x86'] });
  await fetchLabQemu();
  await fetchKernel(LAB_KERNEL);
  const initramfs = await makeInitramfs(CURRENT, join(LAB_KERNEL.folder, 'initramfs'));
  const kernel = unpackedKernel(CURRENT);
  const lab = settings();
  const folder = mkdtempSync(join(tmpdir(), 'microvm-lab-'));
  try {
    const script = join(folder, 'session');
    const modules = join(CURRENT, 'modules', releaseOf(CURRENT));
    writeFileSync(script, sessionScript({ command, modules, cache: CACHE, kvmAmd: process.env.LAB_KVM_AMD ?? '' }));
    return await runMachine(lab, qemuArguments(lab, kernel, initramfs, script));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * @param {LabSettings} lab
 * @param {string[]} qemu
 */
async function runMachine(lab, qemu) {
  // setpriv: the machine ends with us, even when we are killed.
  const machine = spawn('setpriv', ['--pdeathsig', 'KILL', '--', labQemu(), ...qemu], {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe', 'pipe'],
  });
  const [, serial, complaints, stdout, stderr, statusPort] = /** @type {import('node:stream').Readable[]} */ (
    /** @type {unknown} */ (machine.stdio)
  );
  let consoleTail = '';
  let status = '';
  const keep = (text) => {
    consoleTail = (consoleTail + text).slice(-CONSOLE_TAIL);
    if (lab.verbose) process.stderr.write(text);
  };
  serial.setEncoding('utf8').on('data', keep);
  complaints.setEncoding('utf8').on('data', keep);
  stdout.on('data', (chunk) => process.stdout.write(chunk));
  stderr.on('data', (chunk) => process.stderr.write(chunk));
  statusPort.setEncoding('utf8').on('data', (text) => (status += text));

  let stoppedBy;
  const stop = (reason) => {
    stoppedBy ??= reason;
    machine.kill('SIGKILL');
  };
  const timer = setTimeout(() => stop('timeout'), lab.timeout * 1000);
  const signals = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 };
  for (const signal of Object.keys(signals)) process.on(signal, () => stop(signal));
  await new Promise((resolve, reject) => machine.on('error', reject).on('close', resolve));
  clearTimeout(timer);

  if (stoppedBy === 'timeout') {
    console.error(`lab: stopped after ${lab.timeout} s (LAB_TIMEOUT)`);
    return 124;
  }
  if (stoppedBy) return signals[stoppedBy];
  if (/^\d+\n$/.test(status)) return Number(status);
  console.error(
    `lab: the machine ended without an exit status. The end of its console:\n${consoleTail.replaceAll(MISSING_FEATURES, '').trim()}`,
  );
  return 125;
}
