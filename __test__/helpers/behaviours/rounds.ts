// Create and stop, again and again: this process must hold in the end what it held after the first round.

import test from 'ava';

import { MicroVM } from '../../../index.ts';
import { type AcceleratorName, PATIENCE_MS, privateRuntimeFolder } from '../guest.ts';
import { holdings } from '../leftovers.ts';

/** Declares the test. */
export function roundsLeaveNothing(accelerator: AcceleratorName, rounds: number): void {
  privateRuntimeFolder();
  test.serial(`${rounds} rounds of create and stop leave no descriptor, thread, process or file`, async (t) => {
    // A limit of its own puts ava's off for all other tests: only where there is need.
    if (rounds > 5) t.timeout(rounds * 60_000);
    const round = async (index: number): Promise<void> => {
      const vm = await MicroVM.create({ accelerator, bootTimeout: PATIENCE_MS });
      t.is((await vm.exec('echo', [`round ${index}`])).stdout, `round ${index}\n`);
      // Every other round ends without the guest's consent.
      await (index % 2 === 0 ? vm.stop() : vm.kill());
    };
    // The first round loads what stays for the process: the addon, its threads, the measured speed.
    await round(0);
    const before = await holdings();
    for (let index = 1; index <= rounds; index++) await round(index);
    t.deepEqual(await holdings(), before);
  });
}
