// Random work on files in mounted folders: whatever the cache, what is read is what was written, and what the host has
// at the end is what it has after the same work without a guest.

import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';

import { MicroVM, type MountOptions } from '../../../index.ts';
import {
  buildExerciser,
  type Exerciser,
  exerciserHere,
  exerciserInGuest,
  NOT_BY_FUSE,
  NOT_WITHOUT_CONTENT,
  operations,
} from '../file-exerciser.ts';
import { type AcceleratorName, PATIENCE_MS, privateRuntimeFolder } from '../guest.ts';

const SEEDS = [1, 2];
const OPERATIONS = 1500;

const CACHES = ['auto', 'always', 'metadata', 'never'] as const;
const MOUNTS = CACHES.flatMap((cache) => [
  { name: cache, cache, writeback: false },
  { name: `${cache}-writeback`, cache, writeback: true },
]);

/** Declares a test for each kind of mount, of one guest. */
export function fileExerciserBehaviours(accelerator: AcceleratorName): void {
  privateRuntimeFolder();

  let base = '';
  let vm: MicroVM;
  let here: Exerciser;
  let inGuest: Exerciser;

  test.before(async () => {
    base = await mkdtemp(join(tmpdir(), 'microvm-test-'));
    const program = await buildExerciser(base);
    const mounts: Record<string, MountOptions> = {};
    for (const { name, cache, writeback } of MOUNTS) {
      const source = join(base, name);
      await mkdir(source);
      mounts[`/${name}`] = { source, cache, writeback };
    }
    vm = await MicroVM.create({ accelerator, bootTimeout: PATIENCE_MS, mounts });
    await vm.fs.writeFile('/tmp/file-exerciser', await readFile(program), { mode: 0o755 });
    here = exerciserHere(program);
    inGuest = exerciserInGuest(vm, '/tmp/file-exerciser');
  });
  test.after.always(async () => {
    await vm?.kill();
    await rm(base, { recursive: true, force: true });
  });

  /** Operations that a guest lacks where this host has them; upstream.test.ts shows that it is no fault of ours. */
  function impossible(cache: (typeof CACHES)[number]): readonly string[] {
    return cache === 'metadata' || cache === 'never' ? [...NOT_BY_FUSE, ...NOT_WITHOUT_CONTENT] : NOT_BY_FUSE;
  }

  for (const { name, cache } of MOUNTS) {
    test.serial(`random work in the mount "${name}" leaves what it leaves on the file system beneath`, async (t) => {
      const beneath = await operations(here, join(base, 'probed'));
      const possible = await operations(inGuest, `/${name}/probed`);
      const lacking = [...possible].filter(([operation, error]) => error !== '' && beneath.get(operation) === '');
      t.deepEqual(
        lacking.map(([operation]) => operation).filter((operation) => !impossible(cache).includes(operation)),
        [],
      );
      const both = [...possible.keys()].filter((each) => possible.get(each) === '' && beneath.get(each) === '');
      const started = performance.now();
      for (const seed of SEEDS) {
        const words = [String(seed), String(OPERATIONS), ...both];
        const printed = await inGuest(['run', `/${name}/${seed}`, ...words]);
        const alone = join(base, `${name}.${seed}`);
        t.is(await here(['run', alone, ...words]), printed);
        t.deepEqual(await readFile(join(base, name, String(seed))), await readFile(alone));
      }
      t.log(
        `${both.length} operations, ${SEEDS.length * OPERATIONS} times, ${Math.round(performance.now() - started)} ms`,
      );
    });
  }
}
