// What mounted folders do otherwise than the file system beneath is so with upstream's daemon too: no fault of ours.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';

import { type Daemon, startDaemon } from '../../../bench/fs/daemons.ts';
import { bootGuest, type Guest, placeOf } from '../../../bench/fs/guest.ts';
import { virtiofsdPath } from '../../../src/native.ts';
import { buildExerciser, NOT_BY_FUSE, NOT_WITHOUT_CONTENT, operations } from '../../helpers/file-exerciser.ts';
import { privateRuntimeFolder } from '../../helpers/guest.ts';
import { BY_GUESTS_CLOCK, CONFIGURATION, PJDFSTEST, readVerdicts } from '../../helpers/pjdfstest.ts';

privateRuntimeFolder();

const PROGRAMS = { ours: virtiofsdPath(), upstream: process.env['MICROVM_TEST_VIRTIOFSD'] ?? 'virtiofsd' };
const MODES = { delayed: ['--cache', 'always', '--writeback'], kept: [], direct: ['--cache', 'never'] };

let base = '';
let guest: Guest;
const daemons: Daemon[] = [];
/** The guest sees all of this host but its `/tmp`. */
const SHARED = placeOf({ name: 'ours-kept' });

test.before(async () => {
  base = await mkdtemp(join(tmpdir(), 'microvm-test-'));
  for (const [whose, program] of Object.entries(PROGRAMS)) {
    for (const [mode, args] of Object.entries(MODES)) {
      daemons.push(await startDaemon({ name: `${whose}-${mode}`, program, requestQueues: 1, args }, base));
    }
  }
  const shared = join(base, 'ours-kept.share');
  await buildExerciser(shared);
  await writeFile(join(shared, 'configuration'), CONFIGURATION);
  guest = await bootGuest(undefined, daemons, 1);
});
test.after.always(async () => {
  await guest?.end();
  for (const daemon of daemons) await daemon.stop();
  await rm(base, { recursive: true, force: true });
});

/** Whole seconds by which the guest's clock is put off this host's. */
async function verdictsAt(name: string, seconds: number): Promise<string[]> {
  await guest.run(`date -s @${Math.floor(Date.now() / 1000) + seconds}`);
  const names = BY_GUESTS_CLOCK.map((name) => `pjdfstest::tests::${name}`).join(' ');
  const output = await guest.run(`${PJDFSTEST} -c ${SHARED}/configuration -p ${placeOf({ name })} -e ${names} || true`);
  return [...readVerdicts(output).values()].map(({ outcome }) => outcome);
}

for (const whose of Object.keys(PROGRAMS)) {
  test.serial(`${whose}: delayed writes bring the guest's clock in, which may be behind`, async (t) => {
    const all = (outcome: string): string[] => BY_GUESTS_CLOCK.map(() => outcome);
    t.deepEqual(await verdictsAt(`${whose}-delayed`, -60), all('FAILED'));
    t.deepEqual(await verdictsAt(`${whose}-delayed`, 60), all('ok'));
  });

  for (const [mode, lacking] of [
    ['kept', NOT_BY_FUSE],
    ['direct', [...NOT_BY_FUSE, ...NOT_WITHOUT_CONTENT]],
  ] as const) {
    test.serial(`${whose}, ${mode}: operations that there are on this host, and not in the guest`, async (t) => {
      const run = (words: readonly string[]): Promise<string> =>
        guest.run(`${SHARED}/file-exerciser ${words.join(' ')}`);
      const found = await operations(run, `${placeOf({ name: `${whose}-${mode}` })}/probed`);
      t.deepEqual(
        [...found]
          .filter(([, error]) => error !== '')
          .map(([name]) => name)
          .toSorted(),
        lacking.toSorted(),
      );
    });
  }
}
