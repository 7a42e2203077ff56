// What a command costs in a warm machine: `exec('true')` from here and back, against fork, exec and wait of the same program by
// the guest's own shell; and how fast its output comes, for pieces of several sizes. The table goes to stderr, the figures as
// JSON to stdout. node bench/exec.ts [kvm|tcg] [ROUNDS]; it ends with 1 where the ratio is over the limit.

import { MicroVM } from '../index.ts';

const [accelerator = 'auto', rounds = '500'] = process.argv.slice(2);
const ROUNDS = Number(rounds);
const LIMIT = 3;
const OUTPUT_BYTES = 32 * 1024 * 1024;

const median = (times: number[]): number => times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)] ?? Number.NaN;

const vm = await MicroVM.create({ accelerator: accelerator as 'auto' | 'kvm' | 'tcg' });
try {
  // Each measures a share of the rounds in turn, so that what else the host does hits both alike.
  const roundTrips: number[] = [];
  const forks: number[] = [];
  const SHARE = 50;
  for (let done = 0; done < ROUNDS; done += SHARE) {
    for (let index = 0; index < SHARE; index += 1) {
      const started = performance.now();
      await vm.exec('true');
      roundTrips.push(performance.now() - started);
    }
    // The kernel's own clock around the shell's fork, exec and wait, in seconds with two digits: many at once.
    const line = `cut -d' ' -f1 /proc/uptime; i=0; while [ $i -lt ${SHARE} ]; do /bin/true; i=$((i + 1)); done; cut -d' ' -f1 /proc/uptime`;
    const { stdout } = await vm.exec(line, { shell: true });
    const [begin = Number.NaN, end = Number.NaN] = stdout.trim().split('\n').map(Number);
    forks.push(((end - begin) * 1000) / SHARE);
  }
  const roundTripMs = median(roundTrips);
  const forkMs = median(forks);
  const ratio = roundTripMs / forkMs;
  console.error(
    `${vm.accelerator}: exec('true') ${roundTripMs.toFixed(2)} ms, fork+exec+wait in the guest ${forkMs.toFixed(2)} ms: ratio ${ratio.toFixed(2)}`,
  );

  const throughput: Record<string, number> = {};
  for (const blockBytes of [4096, 65_536]) {
    const command = vm.exec('dd', ['if=/dev/zero', `bs=${blockBytes}`, `count=${OUTPUT_BYTES / blockBytes}`], {
      buffer: false,
    });
    const started = performance.now();
    let bytes = 0;
    for await (const piece of command.stdout) bytes += (piece as Buffer).length;
    await command;
    const mibPerSecond = bytes / 1024 / 1024 / ((performance.now() - started) / 1000);
    throughput[blockBytes] = mibPerSecond;
    console.error(`standard output in blocks of ${blockBytes} bytes: ${mibPerSecond.toFixed(1)} MiB/s`);
  }
  console.log(JSON.stringify({ accelerator: vm.accelerator, rounds: ROUNDS, roundTripMs, forkMs, ratio, throughput }));
  process.exitCode = ratio <= LIMIT ? 0 : 1;
} finally {
  await vm.stop();
}
