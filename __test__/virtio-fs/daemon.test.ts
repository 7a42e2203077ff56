import { execFile, spawnSync } from 'node:child_process';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
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

/** Runs a program as a user who may make no user namespaces: the 1000th of one in which there can be no other. */
const FORBIDDEN = [
  ...['--user', '--map-user=1000', '--keep-caps', 'sh', '-c'],
  'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"',
  'sh',
];
const forbids = spawnSync('unshare', [...FORBIDDEN, 'true']).status === 0;
const required = process.env['MICROVM_TEST_REQUIRE_ALL'] === '1';
const whereForbidden = forbids || required ? test.serial : test.serial.skip;
const why = forbids ? '' : ' (not run: namespaces cannot be forbidden here)';

const SERVE = `
  const { VirtioFs } = await import(process.argv[1]);
  const [, , source, socketPath, sandbox] = process.argv;
  try {
    const share = await VirtioFs.serve({ source, socketPath, sandbox });
    await share.stop();
    console.log(JSON.stringify({ served: true }));
  } catch ({ code, message, hint }) {
    console.log(JSON.stringify({ code, message, hint }));
  }
`;

whereForbidden(`a user who may make no namespaces is told what can be done, which helps${why}`, async (t) => {
  const folder = await temporaryFolder(t);
  const index = new URL('../../index.ts', import.meta.url).href;
  const serve = async (sandbox: string): Promise<unknown> => {
    const node = [process.execPath, '--input-type=module', '--eval', SERVE, index];
    const args = [...FORBIDDEN, ...node, folder, join(folder, 'socket'), sandbox];
    return JSON.parse((await promisify(execFile)('unshare', args)).stdout);
  };
  const refused = (await serve('namespace')) as Record<'code' | 'message' | 'hint', string>;
  t.is(refused.code, 'ERR_MOUNT_FAILED');
  t.regex(refused.message, /ended with exit code 1: Error entering sandbox: Unshare/);
  t.regex(refused.hint, /^The daemon's sandbox takes namespaces that this user or container may not create\. /);
  t.regex(refused.hint, /user\.max_user_namespaces above 0.*, run as root, or set the option sandbox to 'none'\.$/);
  t.deepEqual(await readdir(folder), []);
  t.deepEqual(await serve('none'), { served: true });
});
