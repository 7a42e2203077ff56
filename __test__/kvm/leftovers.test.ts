import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { makeGuest, serialTestWithKvm, testWithKvm } from '../helpers/real-mode-guest.ts';
import { threadNames } from '../helpers/threads.ts';

const FIXTURE = fileURLToPath(new URL('../fixtures/endless-guest.ts', import.meta.url));

/** What KVM's handles could leave: descriptors, threads and mappings. */
function kvmLeftovers(): string[] {
  const descriptors = readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return [];
    }
  });
  const mappings = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return [...descriptors, ...threadNames(), ...mappings].filter((line) => /kvm-v|\/dev\/kvm|guest-memory/.test(line));
}

serialTestWithKvm('twenty guests, closed in any order, leave nothing', async (t) => {
  for (let round = 0; round < 20; round++) {
    const { kvm, vm, memory, runner } = makeGuest([0xf4]);
    t.is((await runner.run()).reason, 'hlt');
    const closers = [() => runner.close(), () => vm.close(), () => memory.close(), () => kvm.close()];
    for (const close of round % 2 ? closers : closers.toReversed()) await close();
  }
  t.deepEqual(kvmLeftovers(), []);
});

serialTestWithKvm('a worker that is terminated while its guests run leaves nothing', async (t) => {
  for (let round = 0; round < 3; round++) {
    const workers = [new Worker(FIXTURE), new Worker(FIXTURE)];
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    t.true(kvmLeftovers().length > 0);
    await Promise.all(workers.map((worker) => worker.terminate()));
    t.deepEqual(kvmLeftovers(), []);
  }
});

testWithKvm('a process ends with its own exit code while a guest runs', (t) => {
  t.is(spawnSync(process.execPath, [FIXTURE, 'exit']).status, 7);
  const thrown = spawnSync(process.execPath, [FIXTURE, 'throw'], { encoding: 'utf8' });
  t.is(thrown.status, 1);
  t.regex(thrown.stderr, /thrown on purpose/);
});
