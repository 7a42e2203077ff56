// What a start pays for the look at the KVM device, with the speed of the host measured before: the choice of the
// accelerator against a bare stat and access of the device. The table goes to stderr, the figures as JSON to stdout.
// node bench/doctor.ts [ROUNDS]; it ends with 1 where the choice takes a millisecond or more.

import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { chooseAccelerator } from '../src/accelerators/choose.ts';
import { median } from './median.ts';

const ROUNDS = Number(process.argv[2] ?? 500);
const LIMIT_MS = 1;
const DEVICE = '/dev/kvm';

async function medianMs(work: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const started = performance.now();
    await work();
    times.push(performance.now() - started);
  }
  return median(times);
}

const choose = (): Promise<unknown> => chooseAccelerator({ accelerator: 'auto', kvmDevice: DEVICE, hugePages: false });
const reference = async (): Promise<void> => {
  await stat(DEVICE);
  await access(DEVICE, constants.R_OK | constants.W_OK);
};

// The first one measures the host, and warms the code.
await choose();
await reference();
const chosenMs = await medianMs(choose);
const referenceMs = await medianMs(reference);
const ratio = chosenMs / referenceMs;
console.error(
  `choice ${chosenMs.toFixed(3)} ms, stat and access ${referenceMs.toFixed(3)} ms: ratio ${ratio.toFixed(2)}`,
);
console.log(JSON.stringify({ rounds: ROUNDS, chosenMs, referenceMs, ratio }));
process.exitCode = chosenMs < LIMIT_MS ? 0 : 1;
