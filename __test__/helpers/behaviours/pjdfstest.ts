// The rules of POSIX in mounted folders: nothing may fail that does not fail on the file system beneath.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, basename, join } from 'node:path';
import test from 'ava';

import { MicroVM, type MountOptions } from '../../../index.ts';
import { type AcceleratorName, PATIENCE_MS, privateRuntimeFolder } from '../guest.ts';
import {
  BY_GUESTS_CLOCK,
  counts,
  PJDFSTEST,
  pjdfstestHere,
  pjdfstestInGuest,
  prepareGuest,
  testFolder,
  type Verdicts,
  worse,
} from '../pjdfstest.ts';

/** Every cache mode, with the other options shared out among them. */
const MOUNTS: Readonly<Record<string, Omit<MountOptions, 'source'>>> = {
  auto: {},
  always: { cache: 'always', threads: 2, xattr: true },
  metadata: { cache: 'metadata', posixAcl: true },
  never: { cache: 'never' },
  writeback: { cache: 'always', writeback: true },
};

/** How a test that fails and is no fault looks, in mounts where that holds. */
const EXPLAINED: readonly { readonly test: string; readonly says: RegExp; readonly isSo: (name: string) => boolean }[] =
  [
    // The C library tells how many links a file may have by the kind of file system, and does not know this one.
    { test: 'link::link_count_max', says: /^skipped: Cannot get value for LINK_MAX/, isSo: () => true },
    // See upstream.test.ts.
    ...BY_GUESTS_CLOCK.map((test) => ({ test, says: /^FAILED: /, isSo: (name: string) => name === 'writeback' })),
  ];

/** Declares a test for each kind of mount, of one guest. */
export function pjdfstestBehaviours(accelerator: AcceleratorName): void {
  privateRuntimeFolder();

  let base = '';
  let vm: MicroVM;
  let host: Verdicts;

  test.before(async () => {
    base = await mkdtemp(join(tmpdir(), 'microvm-test-'));
    const mounts: Record<string, MountOptions> = { '/tools': { source: dirname(PJDFSTEST), readonly: true } };
    for (const [name, options] of Object.entries(MOUNTS)) {
      // Some tests take a name that is nine letters long here for a path without end.
      mounts[`/mounts/${name}`] = { source: await testFolder(base, name), ...options };
    }
    host = await pjdfstestHere(await testFolder(base, 'host'));
    vm = await MicroVM.create({ accelerator, bootTimeout: PATIENCE_MS, mounts });
    await prepareGuest(vm);
  });
  test.after.always(async () => {
    await vm?.kill();
    await rm(base, { recursive: true, force: true });
  });

  for (const name of Object.keys(MOUNTS)) {
    test.serial(`pjdfstest finds nothing in the mount "${name}" that it does not find beneath`, async (t) => {
      // In the lab some mounts take longer than all tests may.
      if (accelerator === 'kvm') t.timeout(10 * PATIENCE_MS);
      const started = performance.now();
      const guest = await pjdfstestInGuest(vm, join('/tools', basename(PJDFSTEST)), `/mounts/${name}`);
      t.log(`guest: ${counts(guest)} in ${Math.round(performance.now() - started)} ms; host: ${counts(host)}`);
      const unexplained = worse(guest, host).filter(
        ({ test, how }) => !EXPLAINED.some((known) => known.test === test && known.says.test(how) && known.isSo(name)),
      );
      t.deepEqual(unexplained, []);
    });
  }
}
