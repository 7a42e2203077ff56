// Boots the same kernel, initramfs and command line in our own monitor and in QEMU's microvm machine, by turns.
// The table goes to stderr, the figures as JSON to stdout. `npm run bench` runs it where KVM is native.

import { execFileSync } from 'node:child_process';
import { cpus, release } from 'node:os';
import { fileURLToPath } from 'node:url';
import { normalize } from '../src/config/normalize.ts';
import { findKernel } from '../src/guest/kernel.ts';
import { type Row, summary, table } from './boot/report.ts';
import { MONITORS, type Round } from './boot/round.ts';

const ROUNDS = Number(process.argv[2] ?? 5);
const SCRIPT = fileURLToPath(new URL('boot/round.ts', import.meta.url));

function bootOnce(name: string): Round {
  const output = execFileSync(process.execPath, ['--expose-gc', SCRIPT, name], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return JSON.parse(output) as Round;
}

const names = Object.keys(MONITORS);
// The first boot fills the caches: the unpacked kernel, the initramfs.
for (const name of names) bootOnce(name);
const rounds = new Map<string, Round[]>(names.map((name) => [name, []]));
for (let round = 0; round < ROUNDS; round += 1) {
  for (const [name, done] of rounds) done.push(bootOnce(name));
  console.error(`round ${round + 1} of ${ROUNDS}`);
}

const rows: Row[] = [...rounds].map(([name, done]) => ({ name, rounds: done }));
const spec = normalize({ accelerator: 'kvm' });
const conditions = {
  kernel: (await findKernel(undefined)).release,
  cpus: spec.cpus,
  memoryBytes: spec.memoryBytes,
  host: { kernel: release(), processor: cpus()[0]?.model ?? 'unknown', node: process.version },
  date: new Date().toISOString(),
};
console.error(`\n${table(rows)}\n`);
console.log(JSON.stringify({ conditions, results: summary(rows) }, null, 2));
