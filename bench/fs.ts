// Our file daemon against upstream's virtiofsd 1.14.0, and one request queue of ours against several, through one guest.
// The tables go to stderr, the figures as JSON to stdout. node bench/fs.ts KERNEL-FOLDER VIRTIOFSD [ROUNDS]
//
// The guest's processor is emulated (accelerator tcg), on every host: a ratio is what both take under the same guest, and
// says nothing about times on real hardware.

import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus, loadavg, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { virtiofsdPath } from '../src/native.ts';
import { type Daemon, type DaemonPlan, startDaemon } from './fs/daemons.ts';
import { bootGuest, placeOf } from './fs/guest.ts';
import { type Measured, measure, summary, table } from './fs/pairs.ts';
import { ARCHIVE, DATA_BYTES, PARALLEL_WORK, TOOL, WORK, type Work } from './fs/work.ts';

const [kernelFolder = '', upstream = '', rounds = '5'] = process.argv.slice(2);
const ROUNDS = Number(rounds);
const QUEUES = [1, 2, 4];
const PROJECT = fileURLToPath(new URL('..', import.meta.url));

/** Measures work of daemons through a guest of their own. */
async function compare(plans: readonly DaemonPlan[], work: readonly Work[], guestCpus: number): Promise<Compared> {
  const base = await mkdtemp(join(tmpdir(), 'microvm-bench-fs-'));
  const daemons: Daemon[] = [];
  try {
    for (const plan of plans) {
      const daemon = await startDaemon(plan, base);
      daemons.push(daemon);
      await writeFile(join(daemon.folder, 'data'), Buffer.alloc(DATA_BYTES, 1));
    }
    const [first] = daemons as [Daemon, ...Daemon[]];
    execFileSync('git', ['-C', PROJECT, 'archive', '--output', join(first.folder, 'tree.tar'), 'HEAD']);
    execFileSync('gcc', ['-O2', '-static', '-o', join(first.folder, 'work'), join(PROJECT, 'bench/fs/work.c')]);
    const kernelFiles = { image: join(kernelFolder, 'vmlinuz'), modules: join(kernelFolder, 'modules') };
    const guest = await bootGuest(kernelFiles, daemons, guestCpus);
    try {
      // Into the guest's memory, with the programs that are used later.
      await guest.run(
        `cd ${placeOf(first)} && mv tree.tar ${ARCHIVE} && mv work ${TOOL} && tar -tf ${ARCHIVE} && date`,
      );
      const kernel = await guest.run('uname -r');
      return { kernel, guestCpus, measured: await measure(guest, daemons, work, ROUNDS) };
    } finally {
      await guest.end();
    }
  } finally {
    for (const daemon of daemons) await daemon.stop();
    await rm(base, { recursive: true, force: true });
  }
}

interface Compared {
  readonly kernel: string;
  readonly guestCpus: number;
  readonly measured: readonly Measured[];
}

const program = virtiofsdPath();
const pair = [
  { name: 'ours', program, requestQueues: 1 },
  { name: 'upstream', program: upstream, requestQueues: 1 },
];
// One job at a time takes one processor; a guest has as many queues as processors at most.
const against = await compare(pair, WORK, 1);
const names = ['microvm-virtiofsd', 'virtiofsd 1.14.0'];
console.error(`\n${table(names, against.measured, 1)}\n`);

const queues = QUEUES.map((requestQueues) => ({ name: `queues-${requestQueues}`, program, requestQueues }));
const several = await compare(queues, PARALLEL_WORK, Math.max(...QUEUES));
const queueNames = QUEUES.map((count) => (count === 1 ? '1 queue' : `${count} queues`));
console.error(`\n${table(queueNames, several.measured, 0)}\n`);

const host = {
  kernel: release(),
  processors: availableParallelism(),
  processor: cpus()[0]?.model ?? 'unknown',
  load: loadavg(),
};
const results = {
  conditions: { rounds: ROUNDS, accelerator: 'tcg', guestKernel: against.kernel, host, date: new Date().toISOString() },
  upstream: { guestCpus: against.guestCpus, work: summary(names, against.measured, 1) },
  queues: { guestCpus: several.guestCpus, work: summary(queueNames, several.measured, 0) },
};
console.log(JSON.stringify(results, null, 2));
