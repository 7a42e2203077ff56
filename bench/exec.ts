// What commands, their output and copies cost in a warm machine, each against a reference in the same run and the same guest:
// a command's round trip, output, a copy of 10,000 files, and the memory of commands that do nothing. The table goes to stderr,
// the figures as JSON to stdout. The references are a program in C: a compiler has to be there.
// node bench/exec.ts [kvm|tcg] [ROUNDS]; it ends with 1 where a target is missed.

import { execFileSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, cpus, loadavg, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { MicroVM } from '../index.ts';
import { copies } from './exec/copies.ts';
import { idle } from './exec/idle.ts';
import { output } from './exec/output.ts';
import { type Figure, GUEST_PROGRAM, isMet, table } from './exec/report.ts';
import { roundTrips } from './exec/round-trips.ts';

const [accelerator = 'auto', rounds = '10'] = process.argv.slice(2);
const ROUNDS = Number(rounds);
/** A copy takes seconds where the guest is emulated. */
const COPY_ROUNDS = Math.min(ROUNDS, 3);
const BOOT_LIMIT_MS = 300_000;

const home = await mkdtemp(join(tmpdir(), 'microvm-bench-exec-'));
const vm = await MicroVM.create({
  accelerator: accelerator as 'auto' | 'kvm' | 'tcg',
  memory: '1GiB',
  bootTimeout: BOOT_LIMIT_MS,
});
try {
  const program = join(home, 'guest');
  const source = fileURLToPath(new URL('exec/guest.c', import.meta.url));
  execFileSync('cc', ['-O2', '-static', '-o', program, source]);
  await vm.fs.copyIn(program, GUEST_PROGRAM);

  const figures: Figure[] = [];
  const note = (figure: Figure): void => {
    figures.push(figure);
    console.error(`${figure.title}: ${figure.ours.toFixed(2)} ${figure.unit}`);
  };
  note(await roundTrips(vm, ROUNDS));
  const { figure, guestMiB } = await idle(vm);
  note(figure);
  for (const blockBytes of [65_536, 4096]) {
    for (const reference of ['vsock', 'pipe'] as const) note(await output(vm, ROUNDS, blockBytes, reference));
  }
  note(await copies(vm, COPY_ROUNDS, home));

  const kernel = (await vm.exec('uname', ['-r'])).stdout.trim();
  console.error(`\n${table(figures)}\n\nOf the memory, ${guestMiB.toFixed(2)} MiB are the guest's.`);
  const host = {
    kernel: release(),
    processors: availableParallelism(),
    processor: cpus()[0]?.model ?? 'unknown',
    load: loadavg(),
  };
  const conditions = { accelerator: vm.accelerator, kernel, rounds: ROUNDS, host, date: new Date().toISOString() };
  console.log(JSON.stringify({ conditions, figures, idleGuestMiB: guestMiB }, null, 2));
  process.exitCode = figures.every(isMet) ? 0 : 1;
} finally {
  await vm.stop();
  await rm(home, { recursive: true, force: true });
}
