import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';

import { MicroVMError, VirtioFs } from '../../index.ts';
import { startDaemon } from '../../src/virtio-fs/daemon.ts';
import { children } from '../helpers/leftovers.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

test.serial('a start that nobody waits for any more ends, and nothing is left of it', async (t) => {
  const folder = await temporaryFolder(t);
  const shared = await temporaryFolder(t);
  const args = ['--shared-dir', shared, '--socket-path', join(folder, 'socket')];
  const controller = new AbortController();
  const owner = { name: 'The daemon', otherwise: '', signal: controller.signal };
  const starting = startDaemon(args, owner);
  controller.abort(new Error('no longer'));
  await t.throwsAsync(starting, { message: 'no longer' });
  t.deepEqual(await readdir(folder), []);
  t.false((await children()).some(({ name }) => name.startsWith('microvm-virtiof')));
  await t.throwsAsync(startDaemon(args, owner), { message: 'no longer' });
});

test.serial('a hint is given for what it is about, and not for names that sound like it', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'a mount namespace');
  await mkdir(source);
  const socketPath = join(source, 'Error entering sandbox');
  await writeFile(socketPath, '');
  const error = await t.throwsAsync(VirtioFs.serve({ source, socketPath }), { instanceOf: MicroVMError });
  t.regex(error.message, /Error creating listener/);
  t.is(error.hint, undefined);
});
