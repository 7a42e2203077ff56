import { once } from 'node:events';
import { mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import test, { type ExecutionContext } from 'ava';
import { type CacheEntry, cacheFolder, cleanCache, listCache } from '../../src/cache/cache.ts';
import { heldEntries, holdEntry } from '../../src/cache/hold.ts';
import { holdGuestFiles } from '../../src/cache/hold-guest.ts';
import { publishFile } from '../../src/cache/publish.ts';
import { isAlive, processIdentity } from '../../src/host/process-identity.ts';
import { startFixture } from '../helpers/fixture-process.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

/** A cache as set-up and some runs leave it. */
async function makeCache(t: ExecutionContext): Promise<string> {
  const folder = await temporaryFolder(t);
  await mkdir(join(folder, 'guest/debian-1/modules'), { recursive: true });
  await mkdir(join(folder, 'guest/userland-1'));
  await mkdir(join(folder, 'initramfs'));
  await symlink('debian-1', join(folder, 'guest/current'));
  await writeFile(join(folder, 'guest/debian-1/vmlinuz'), 'x'.repeat(300));
  await writeFile(join(folder, 'guest/debian-1/modules/a.ko'), 'x'.repeat(100));
  await writeFile(join(folder, 'guest/userland-1/busybox'), 'x'.repeat(200));
  await writeFile(join(folder, 'initramfs/1.cpio'), 'x'.repeat(50));
  return folder;
}

const names = (entries: readonly CacheEntry[], folder: string): string[] =>
  entries.map(({ path }) => path.slice(folder.length + 1));

test('the cache is where the environment says', (t) => {
  t.is(cacheFolder({ MICROVM_CACHE: '/a', XDG_CACHE_HOME: '/b', HOME: '/c' }), '/a');
  t.is(cacheFolder({ XDG_CACHE_HOME: '/b', HOME: '/c' }), '/b/microvm');
  t.is(cacheFolder({ XDG_CACHE_HOME: 'relative', HOME: '/c' }), '/c/.cache/microvm');
});

test('entries are listed with kinds and sizes, the largest first, links not at all', async (t) => {
  const folder = await makeCache(t);
  const entries = await listCache(folder);
  t.deepEqual(
    entries.map(({ kind, bytes, inUse }) => [kind, bytes, inUse]),
    [
      ['kernel', 400, false],
      ['userland', 200, false],
      ['initramfs', 50, false],
    ],
  );
  t.true(entries.every(({ usedAt }) => usedAt instanceof Date));
});

test('a cache that is not there is empty', async (t) => {
  const folder = join(await temporaryFolder(t), 'none');
  t.deepEqual(await listCache(folder), []);
  t.deepEqual(await cleanCache({ folder }), { removed: [], kept: [] });
});

test('cleaning everything takes links along that would lead nowhere', async (t) => {
  const folder = await makeCache(t);
  const { removed, kept } = await cleanCache({ folder, all: true });
  t.is(removed.length, 3);
  t.is(kept.length, 0);
  t.deepEqual(await readdir(join(folder, 'guest')), []);
});

test('cleaning keeps what only the set-up can make: kernels, userlands, tools', async (t) => {
  const folder = await makeCache(t);
  await mkdir(join(folder, 'vmlinux'));
  await writeFile(join(folder, 'vmlinux/1'), 'x');
  await mkdir(join(folder, 'tools'));
  await writeFile(join(folder, 'tools/busybox.deb'), 'x');
  const { removed, kept } = await cleanCache({ folder });
  t.deepEqual(names(removed, folder).toSorted(), ['initramfs/1.cpio', 'vmlinux/1']);
  t.deepEqual(names(kept, folder).toSorted(), ['guest/debian-1', 'guest/userland-1', 'tools/busybox.deb']);
  t.true((await readdir(join(folder, 'guest'))).includes('current'));
});

test('what a machine is made of is held by the paths that lead to it', async (t) => {
  const folder = await makeCache(t);
  await symlink('userland-1', join(folder, 'guest/userland-current'));
  const paths = [join(folder, 'guest/current/vmlinuz'), join(folder, 'guest/userland-current'), '/no/such', '/usr'];
  const hold = await holdGuestFiles(paths, folder);
  t.deepEqual([...(await heldEntries(folder))].toSorted(), ['guest/debian-1', 'guest/userland-1']);
  t.deepEqual(names((await cleanCache({ folder, all: true })).kept, folder), ['guest/debian-1', 'guest/userland-1']);
  await hold.release();
  t.deepEqual(await readdir(join(folder, 'holds')), []);
  t.is((await heldEntries(await temporaryFolder(t))).size, 0);
  await t.notThrowsAsync((await holdGuestFiles(paths, join(folder, 'none'))).release());
});

test('threads that hold the same entry do not release each other', async (t) => {
  const folder = await makeCache(t);
  const entry = join(folder, 'initramfs/1.cpio');
  const own = await holdEntry(entry);
  const worker = new Worker(new URL('../fixtures/hold-and-release.ts', import.meta.url), { argv: [entry] });
  await once(worker, 'exit');
  t.deepEqual([...(await heldEntries(folder))], ['initramfs/1.cpio']);
  await own.release();
  t.is((await heldEntries(folder)).size, 0);
});

test('an entry that a process holds is kept until it is released', async (t) => {
  const folder = await makeCache(t);
  const entry = join(folder, 'initramfs/1.cpio');
  const [first, second] = [await holdEntry(entry), await holdEntry(entry)];
  t.true(names((await cleanCache({ folder })).kept, folder).includes('initramfs/1.cpio'));
  await first.release();
  t.true((await listCache(folder)).find(({ kind }) => kind === 'initramfs')?.inUse);
  await second.release();
  await second.release();
  t.deepEqual(names((await cleanCache({ folder })).removed, folder), ['initramfs/1.cpio']);
});

test("another process's hold counts as long as that process lives", async (t) => {
  const folder = await makeCache(t);
  const holder = await startFixture(t, 'hold-cache-entry', join(folder, 'guest/debian-1'));
  t.deepEqual(names((await cleanCache({ folder, all: true })).kept, folder), ['guest/debian-1']);
  await holder.kill('SIGKILL');
  t.deepEqual(names((await cleanCache({ folder, all: true })).removed, folder), ['guest/debian-1']);
  t.deepEqual(await readdir(join(folder, 'holds')), []);
});

test('a process id that passed to another process holds nothing', async (t) => {
  const folder = await makeCache(t);
  await mkdir(join(folder, 'holds'));
  await writeFile(join(folder, 'holds', `initramfs%2F1.cpio@${process.pid}-1-1`), '');
  t.is((await heldEntries(folder)).size, 0);
});

test('a process is known by its id and the time of its start', (t) => {
  const identity = processIdentity() ?? '';
  t.regex(identity, new RegExp(`^${process.pid}-\\d+$`));
  t.true(isAlive(identity));
  t.false(isAlive(`${process.pid}-1`));
  t.false(isAlive(''));
  t.is(processIdentity(2 ** 22 + 1), undefined);
});

test('a published file is there whole or not at all', async (t) => {
  const path = join(await temporaryFolder(t), 'initramfs', '2.cpio');
  await publishFile(path, async (temporary) => {
    await writeFile(temporary, 'content');
    await t.throwsAsync(stat(path), { code: 'ENOENT' });
  });
  t.is(await readFile(path, 'utf8'), 'content');

  const failing = publishFile(path, async (temporary) => {
    await writeFile(temporary, 'half');
    throw new Error('enough');
  });
  await t.throwsAsync(failing, { message: 'enough' });
  t.is(await readFile(path, 'utf8'), 'content');
  t.deepEqual(await readdir(join(path, '..')), ['2.cpio']);
});

test('an unfinished file is in use while its maker lives, and can be cleaned afterwards', async (t) => {
  const folder = await makeCache(t);
  await writeFile(join(folder, 'initramfs', `.tmp-${processIdentity()}-abc`), '');
  await writeFile(join(folder, 'initramfs', `.tmp-${process.pid}-1-abc`), '');
  const { removed, kept } = await cleanCache({ folder });
  t.deepEqual(names(removed, folder).toSorted(), [`initramfs/.tmp-${process.pid}-1-abc`, 'initramfs/1.cpio']);
  t.is(kept.find(({ kind }) => kind === 'temporary')?.inUse, true);
});

test('a cache that cannot be written to is an error with its own code', async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, 'initramfs'), 'a file where a folder should be');
  const published = publishFile(join(folder, 'initramfs/1.cpio'), () => Promise.resolve());
  await t.throwsAsync(published, { code: 'ERR_CACHE', message: /EEXIST|ENOTDIR/ });
  const hold = await holdEntry(join(folder, 'initramfs/x/1.cpio'));
  await t.notThrowsAsync(hold.release());
});
