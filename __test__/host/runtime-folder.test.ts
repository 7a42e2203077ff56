import { once } from 'node:events';
import { chmod, mkdir, readdir, stat, symlink, writeFile } from 'node:fs/promises';
import promises from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import test from 'ava';
import { MicroVMError } from '../../src/errors.ts';
import { createRuntimeFolder, sweepRuntimeFolders } from '../../src/host/runtime-folder.ts';
import { runtimeRoot } from '../../src/host/runtime-root.ts';
import { startFixture } from '../helpers/fixture-process.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

test('a folder is private, and gone after remove', async (t) => {
  const root = await temporaryFolder(t);
  const folder = await createRuntimeFolder(root);
  t.is((await stat(folder.path)).mode & 0o777, 0o700);
  await writeFile(folder.socketPath('v'), '');
  await folder.remove();
  await folder.remove();
  t.deepEqual(await readdir(root), []);
});

test('removeSync does the same at once', async (t) => {
  const root = await temporaryFolder(t);
  const folder = await createRuntimeFolder(root);
  await mkdir(join(folder.path, 'inner'));
  folder.removeSync();
  folder.removeSync();
  t.deepEqual(await readdir(root), []);
  await folder.remove();
});

test.serial('a folder that cannot get its name leaves neither itself nor its lock', async (t) => {
  const root = await temporaryFolder(t);
  const { rename } = promises;
  let lock = '';
  promises.rename = async (from) => {
    // Under another name the socket can still be reached: whether somebody listens shows there.
    lock = `${root}/lock`;
    await promises.link(join(String(from), 'lock'), lock);
    throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
  };
  syncBuiltinESMExports();
  t.teardown(() => {
    promises.rename = rename;
    syncBuiltinESMExports();
  });
  await t.throwsAsync(createRuntimeFolder(root), { code: 'ERR_RUNTIME_FOLDER', message: /ENOSPC/ });
  promises.rename = rename;
  syncBuiltinESMExports();
  t.deepEqual(await readdir(root), ['lock']);
  const [refused] = (await once(createConnection(lock), 'error')) as [NodeJS.ErrnoException];
  t.is(refused.code, 'ECONNREFUSED');
});

test('folders of living owners are kept, in this process and in another', async (t) => {
  const root = await temporaryFolder(t);
  const own = await createRuntimeFolder(root);
  t.teardown(() => own.remove());
  const other = await startFixture(t, 'hold-runtime-folder', root);
  t.deepEqual(await sweepRuntimeFolders(root), []);
  t.true(await exists(own.path));
  t.true(await exists(other.line));
});

test('the folder of an owner that was killed is swept at the next start', async (t) => {
  const root = await temporaryFolder(t);
  const other = await startFixture(t, 'hold-runtime-folder', root);
  await writeFile(join(other.line, 'left'), 'behind');
  await other.kill('SIGKILL');
  t.true(await exists(other.line));
  const folder = await createRuntimeFolder(root);
  t.teardown(() => folder.remove());
  t.deepEqual(await readdir(root), [basename(folder.path)]);
});

test('many sweepers at the same time remove what is dead and nothing else', async (t) => {
  const root = await temporaryFolder(t);
  const dead = await Promise.all(Array.from({ length: 3 }, () => startFixture(t, 'hold-runtime-folder', root)));
  await Promise.all(dead.map(({ kill }) => kill('SIGKILL')));
  const made = await Promise.all(Array.from({ length: 12 }, () => createRuntimeFolder(root)));
  t.deepEqual((await readdir(root)).sort(), made.map(({ path }) => basename(path)).sort());
  await Promise.all(made.map((folder) => folder.remove()));
  t.deepEqual(await readdir(root), []);
});

test('unfinished folders are swept when they are old, and what is not ours is left alone', async (t) => {
  const root = await temporaryFolder(t);
  await mkdir(join(root, '.new-000000000000'));
  await mkdir(join(root, 'someone-elses'));
  t.deepEqual(await sweepRuntimeFolders(root), []);
  // The time of the last change cannot be set back, but that of the sweeper can be put forward.
  t.deepEqual(await sweepRuntimeFolders(root, Date.now() + 61_000), ['.new-000000000000']);
  t.deepEqual(await readdir(root), ['someone-elses']);
});

test('an owner that is stopped and answers nothing keeps its folder', async (t) => {
  const root = await temporaryFolder(t);
  const { child, line } = await startFixture(t, 'hold-runtime-folder', root);
  child.kill('SIGSTOP');
  t.deepEqual((await Promise.all(Array.from({ length: 20 }, () => sweepRuntimeFolders(root)))).flat(), []);
  t.true(await exists(line));
});

test("a socket's path that would be too long with its port is refused", async (t) => {
  const folder = await createRuntimeFolder(await temporaryFolder(t));
  t.teardown(() => folder.remove());
  t.throws(() => folder.socketPath('x'.repeat(90)), { code: 'ERR_SOCKET_PATH_TOO_LONG' });
  const deep = join(await temporaryFolder(t), 'x'.repeat(80));
  await mkdir(deep);
  await t.throwsAsync(createRuntimeFolder(deep), { code: 'ERR_SOCKET_PATH_TOO_LONG' });
  t.deepEqual(await readdir(deep), []);
});

test("the root is in the user's own runtime folder, else under the folder for temporary files", async (t) => {
  const session = await temporaryFolder(t);
  const temporary = await temporaryFolder(t);
  const uid = process.getuid?.();
  t.is(await runtimeRoot({ XDG_RUNTIME_DIR: session, TMPDIR: temporary }), join(session, 'microvm'));
  const expected = join(temporary, `microvm-${uid}`);
  t.is(await runtimeRoot({ XDG_RUNTIME_DIR: '/no/such', TMPDIR: temporary }), expected);
  t.is(await runtimeRoot({ XDG_RUNTIME_DIR: 'relative', TMPDIR: temporary }), expected);
  t.is(await runtimeRoot({ TMPDIR: temporary }), expected);
  t.is((await stat(expected)).mode & 0o777, 0o700);
  for (const TMPDIR of ['', 'relative', './here']) {
    t.is(await runtimeRoot({ TMPDIR }), join(tmpdir(), `microvm-${uid}`), TMPDIR);
  }
});

test('a root that others prepared is refused: a link, a file, an open folder', async (t) => {
  const refused = { instanceOf: MicroVMError, code: 'ERR_RUNTIME_FOLDER' };
  const uid = process.getuid?.();
  const elsewhere = await temporaryFolder(t);
  for (const prepare of [
    (path: string) => symlink(elsewhere, path),
    (path: string) => writeFile(path, ''),
    (path: string) => mkdir(path).then(() => chmod(path, 0o777)),
  ]) {
    const temporary = await temporaryFolder(t);
    await prepare(join(temporary, `microvm-${uid}`));
    await t.throwsAsync(runtimeRoot({ TMPDIR: temporary }), refused);
  }
  await t.throwsAsync(runtimeRoot({ TMPDIR: '/no/such' }), refused);
});

if (process.getuid?.() === 0) {
  test("a session folder of another user's, as sudo leaves it, is passed over; a root of another's is refused", async (t) => {
    const { chown } = await import('node:fs/promises');
    const [session, temporary] = [await temporaryFolder(t), await temporaryFolder(t)];
    await chown(session, 1234, 1234);
    t.is(await runtimeRoot({ XDG_RUNTIME_DIR: session, TMPDIR: temporary }), join(temporary, 'microvm-0'));
    await chown(join(temporary, 'microvm-0'), 1234, 1234);
    await t.throwsAsync(runtimeRoot({ TMPDIR: temporary }), {
      code: 'ERR_RUNTIME_FOLDER',
      message: /belongs to user 1234/,
    });
  });
}

test('a root that cannot be written to is an error with its cause', async (t) => {
  const root = await temporaryFolder(t);
  const error = await t.throwsAsync(createRuntimeFolder(join(root, 'none')), { instanceOf: MicroVMError });
  t.is(error.code, 'ERR_RUNTIME_FOLDER');
});
