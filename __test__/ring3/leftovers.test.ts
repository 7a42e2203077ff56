import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { makeProgram } from '../helpers/ring3-program.ts';
import { ring3Test, serialRing3Test } from '../helpers/ring3.ts';

const FIXTURE = fileURLToPath(new URL('../fixtures/endless-program.ts', import.meta.url));

/** What programs could leave: descriptors, threads and mappings. */
function leftovers(): string[] {
  const descriptors = readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return [];
    }
  });
  const threads = readdirSync('/proc/self/task').map((id) => readFileSync(`/proc/self/task/${id}/comm`, 'utf8').trim());
  const mappings = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return [...descriptors, ...threads, ...mappings].filter((line) => /kvm-v|\/dev\/kvm|guest-memory|^ring3-/.test(line));
}

serialRing3Test('programs in machines of their own, closed in any order, leave nothing', async (t) => {
  for (let round = 0; round < 10; round++) {
    // syscall
    const { platform, memory, space, context, start } = await makeProgram(0x0f, 0x05);
    t.is((await context.switch(space, start)).reason, 'system-call');
    const closers = [() => platform.close(), () => memory.close(), () => space.release(), () => context.close()];
    for (const close of round % 2 ? closers : closers.toReversed()) await close();
  }
  t.deepEqual(leftovers(), []);
});

serialRing3Test('a worker that is terminated while its programs run leaves nothing', async (t) => {
  for (let round = 0; round < 3; round++) {
    const workers = [new Worker(FIXTURE), new Worker(FIXTURE)];
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    t.true(leftovers().some((line) => line.startsWith('ring3-')));
    await Promise.all(workers.map((worker) => worker.terminate()));
    t.deepEqual(
      leftovers().filter((line) => line.startsWith('ring3-')),
      [],
    );
  }
});

ring3Test('a process ends with its own exit code while a program runs', (t) => {
  t.is(spawnSync(process.execPath, [FIXTURE, 'exit']).status, 7);
  const thrown = spawnSync(process.execPath, [FIXTURE, 'throw'], { encoding: 'utf8' });
  t.is(thrown.status, 1);
  t.regex(thrown.stderr, /thrown on purpose/);
});
