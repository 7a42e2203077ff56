// Boots the same kernel, initramfs and command line in our own monitor and in QEMU's microvm machine, by turns.
// The table goes to stderr, the figures as JSON to stdout. `npm run bench` runs it where KVM is native.

import { cpus, release } from 'node:os';
import { kvm } from '../src/accelerators/kvm.ts';
import { GUEST_CID } from '../src/accelerators/accelerator.ts';
import { bootableImage } from '../src/accelerators/vmlinux.ts';
import { normalize } from '../src/config/normalize.ts';
import { buildInitramfs } from '../src/guest/initramfs.ts';
import { findKernel } from '../src/guest/kernel.ts';
import { agentPath } from '../src/native.ts';
import { kernelCommandLine } from '../src/vm/kernel-command-line.ts';
import { memoryBeyondGuest } from './boot/memory.ts';
import { type QemuMicrovm, qemuMicrovm } from './boot/qemu-microvm.ts';
import { table, summary } from './boot/report.ts';
import { type BootedFrom, type Round, bootOnce } from './boot/round.ts';

const ROUNDS = Number(process.argv[2] ?? 5);

async function prepare(): Promise<BootedFrom> {
  const spec = normalize({ accelerator: 'kvm' });
  const found = await findKernel(undefined);
  const { memoryBytes, rootfs } = spec;
  const initramfs = await buildInitramfs({
    kernel: found,
    rootfs,
    transport: kvm.transport,
    memoryBytes,
    agent: agentPath(),
  });
  return {
    ...spec,
    // Both boot the unpacked kernel, so neither pays for unpacking it.
    kernel: { ...found, image: (await bootableImage(found)).path, format: 'elf' },
    initramfs: initramfs.path,
    commandLine: kernelCommandLine(spec, kvm),
    guestCid: GUEST_CID,
  };
}

/** Ours lives in this process: what it costs is what this process grows by. */
function ownMemory(): number {
  globalThis.gc?.();
  return memoryBeyondGuest('self');
}

/** QEMU's process is all cost. */
function qemuMemory(machine?: QemuMicrovm): number {
  return machine ? memoryBeyondGuest(machine.pid) : 0;
}

const from = await prepare();
const ours: Round[] = [];
const theirs: Round[] = [];
for (let round = 0; round < ROUNDS; round += 1) {
  ours.push(await bootOnce(kvm, from, ownMemory));
  theirs.push(await bootOnce(qemuMicrovm, from, qemuMemory));
  console.error(`round ${round + 1} of ${ROUNDS}`);
}

const rows = [
  { name: '@hybrid/microvm', rounds: ours },
  { name: 'QEMU -M microvm', rounds: theirs },
];
const conditions = {
  kernel: from.kernel.release,
  commandLine: from.commandLine,
  cpus: from.cpus,
  memoryBytes: from.memoryBytes,
  host: { kernel: release(), processor: cpus()[0]?.model ?? 'unknown', node: process.version },
  date: new Date().toISOString(),
};
console.error(`\n${table(rows)}\n`);
console.log(JSON.stringify({ conditions, results: summary(rows) }, null, 2));
