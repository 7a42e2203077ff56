import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { Platform, UserSandbox } from '../../src/ring3/index.ts';
import { makeProgram } from '../helpers/ring3-program.ts';
import { BUSYBOX, ring3Test, serialRing3Test } from '../helpers/ring3.ts';
import { threadNames } from '../helpers/threads.ts';

const FIXTURE = fileURLToPath(new URL('../fixtures/endless-program.ts', import.meta.url));
const ASKING = fileURLToPath(new URL('../fixtures/asking-program.ts', import.meta.url));

/** What programs could leave: descriptors, threads and mappings. */
function leftovers(): string[] {
  const descriptors = readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return [];
    }
  });
  const mappings = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return [...descriptors, ...threadNames(), ...mappings].filter((line) =>
    /kvm-v|\/dev\/kvm|guest-memory|^ring3-/.test(line),
  );
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

serialRing3Test('sandboxes made, used and dropped in rounds leave nothing', async (t) => {
  const platform = await Platform.open('kvm', { vcpus: 2 });
  const round = async (): Promise<void> => {
    const box = await UserSandbox.create({ platform, memory: '16MiB' });
    await box.run(BUSYBOX, ['echo', 'x'], {
      stdin: ['a'],
      timeout: 60_000,
      onSyscall: { names: ['write'], decide: () => {} },
    });
    await box.close();
  };
  // Each has a thread of its own: until there are as many vCPUs as there may be, one is made for it.
  for (let index = 0; index < 4; index++) await round();
  const before = counts();
  for (let index = 0; index < 60; index++) await round();
  const after = counts();
  t.deepEqual([after.descriptors, after.threads], [before.descriptors, before.threads]);
  t.true(after.mappings <= before.mappings + 8, `${before.mappings} mappings became ${after.mappings}`);
  t.true(after.resident <= before.resident + 2 ** 25, `${before.resident} bytes became ${after.resident}`);
  await platform.close();
  t.deepEqual(leftovers(), []);
});

serialRing3Test('a sandbox that is forgotten while its machine lives is collected', async (t) => {
  const platform = await Platform.open('kvm');
  const forget = async (): Promise<void> => {
    const box = await UserSandbox.create({ platform });
    await box.run(BUSYBOX, ['true']);
  };
  for (let index = 0; index < 10; index++) await forget();
  t.true(threadNames().includes('ring3-sandbox'));
  const collect = (globalThis as { gc?: () => void }).gc ?? exposedGc();
  // The limit of all tests tells of one that stays.
  while (threadNames().includes('ring3-sandbox')) {
    collect();
    // Finalizers run in turns of the event loop, and threads end by themselves.
    await new Promise(setImmediate);
  }
  await platform.close();
});

serialRing3Test('a worker that is terminated while its hook is asked leaves nothing', async (t) => {
  for (let round = 0; round < 3; round++) {
    const worker = new Worker(ASKING, { argv: [BUSYBOX] });
    await once(worker, 'message');
    await worker.terminate();
    t.deepEqual(
      leftovers().filter((line) => line.startsWith('ring3-')),
      [],
    );
  }
});

interface Counts {
  readonly descriptors: number;
  readonly threads: number;
  readonly mappings: number;
  readonly resident: number;
}

function counts(): Counts {
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    threads: threadNames().filter((name) => name.startsWith('ring3-') || name.startsWith('microvm-')).length,
    mappings: readFileSync('/proc/self/maps', 'utf8')
      .split('\n')
      .filter((line) => /kvm|memfd/.test(line)).length,
    resident: process.memoryUsage().rss,
  };
}

function exposedGc(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}
