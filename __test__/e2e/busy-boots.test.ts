// A guest must come up however busy the host is. Five boots here, fifty in `npm run soak` (MICROVM_BUSY_BOOTS).

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import test from 'ava';
import { MicroVM } from '../../index.ts';

const BOOTS = Number(process.env['MICROVM_BUSY_BOOTS'] ?? 5);
const MINUTE = 60_000;

let hogs: ChildProcess[] = [];

test.before(async () => {
  hogs = Array.from({ length: availableParallelism() }, () =>
    spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }),
  );
  await Promise.all(hogs.map((hog) => once(hog, 'spawn')));
});

test.after.always(async () => {
  const ends = hogs.map((hog) => once(hog, 'exit'));
  for (const hog of hogs) hog.kill('SIGKILL');
  await Promise.all(ends);
});

test.serial(`tcg boots ${BOOTS} times of ${BOOTS} while all cores are busy`, async (t) => {
  // A limit of its own puts ava's off for all other tests, and the idle time that it then misses is missed for good.
  if (BOOTS > 5) t.timeout(BOOTS * 2 * MINUTE);
  const failures: unknown[] = [];
  for (let boot = 0; boot < BOOTS; boot += 1) {
    try {
      const vm = await MicroVM.create({ accelerator: 'tcg' });
      const { stdout } = await vm.exec('echo', [`boot ${boot}`]);
      await vm.kill();
      if (stdout !== `boot ${boot}\n`) failures.push(stdout);
    } catch (error) {
      failures.push(error);
    }
  }
  t.deepEqual(failures, []);
});
