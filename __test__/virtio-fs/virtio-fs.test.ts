import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, watch } from 'node:fs';
import { access, mkdir, readFile, realpath, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';

import { MicroVMError, VirtioFs, type VirtioFsOptions } from '../../index.ts';
import { virtiofsdPath } from '../../src/native.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

const INDEX = new URL('../../index.ts', import.meta.url).href;
const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));

test('a daemon is served for other monitors, and leaves nothing when it is stopped', async (t) => {
  const folder = await temporaryFolder(t);
  await mkdir(join(folder, 'share'));
  const socketPath = join(folder, 'socket');
  const share = await VirtioFs.serve({ source: join(folder, 'share'), socketPath, tag: 'work', requestQueues: 2 });
  t.is(share.socketPath, socketPath);
  await access(`${socketPath}.pid`);
  await share.stop();
  t.is(await share.ended, undefined);
  await t.throwsAsync(access(socketPath), { code: 'ENOENT' });
  await t.throwsAsync(access(`${socketPath}.pid`), { code: 'ENOENT' });
});

test('with reconnect it waits for the next monitor, and its end is told', async (t) => {
  const folder = await temporaryFolder(t);
  const socketPath = join(folder, 'socket');
  const share = await VirtioFs.serve({ source: folder, socketPath, reconnect: true });
  for (let round = 0; round < 3; round += 1) {
    const connection = connect(socketPath);
    await once(connection, 'connect');
    connection.destroy();
    await once(connection, 'close');
  }
  const ended = share.ended;
  await share.stop();
  t.is(await ended, undefined);
});

test('every wrong option is listed at once', async (t) => {
  const options = { source: '', socketPath: '', tag: 'x'.repeat(37), requestQueues: 0, cache: 'x', reconect: true };
  const error = await t.throwsAsync(VirtioFs.serve(options as unknown as VirtioFsOptions), {
    instanceOf: MicroVMError,
  });
  t.is(error.code, 'ERR_INVALID_OPTIONS');
  t.deepEqual(error.problems?.map(({ path }) => path).toSorted(), [
    'cache',
    'reconect',
    'requestQueues',
    'socketPath',
    'source',
    'tag',
  ]);
});

test('names that look like options are names, and a path that no socket can have is told at once', async (t) => {
  const folder = await temporaryFolder(t);
  const socketPath = join(folder, 'socket');
  const share = await VirtioFs.serve({ source: folder, socketPath, tag: '--readonly' });
  await share.stop();
  await t.throwsAsync(VirtioFs.serve({ source: folder, socketPath, socketGroup: '--help' }), {
    code: 'ERR_MOUNT_FAILED',
    message: /Couldn't resolve the group name/,
  });
  await t.throwsAsync(VirtioFs.serve({ source: folder, socketPath: join(folder, 'x'.repeat(108)) }), {
    code: 'ERR_INVALID_OPTIONS',
    message: /at most 107 bytes/,
  });
});

test('a daemon that was stopped from outside is killed when it is to end', async (t) => {
  const folder = await temporaryFolder(t);
  const share = await VirtioFs.serve({ source: folder, socketPath: join(folder, 'socket') });
  const supervisor = Number(await readFile(join(folder, 'socket.pid'), 'utf8'));
  process.kill(supervisor, 'SIGSTOP');
  await share.stop();
  t.throws(() => process.kill(supervisor, 0), { code: 'ESRCH' });
});

for (const [end, how] of [
  ['process.exit(0)', 'exits'],
  ["process.kill(process.pid, 'SIGKILL')", 'is killed'],
] as const) {
  test(`nothing is left of a daemon whose owner ${how}`, async (t) => {
    const folder = await temporaryFolder(t);
    const shared = await temporaryFolder(t);
    const socketPath = join(folder, 'socket');
    const serve = `
      import { VirtioFs } from ${JSON.stringify(INDEX)};
      await VirtioFs.serve({ source: ${JSON.stringify(shared)}, socketPath: ${JSON.stringify(socketPath)} });
      ${end};`;
    const owner = spawn(process.execPath, ['--input-type=module', '-e', serve], { stdio: 'inherit' });
    const gone = emptied(folder);
    await once(owner, 'exit');
    await gone;
    t.pass();
  });
}

/** Resolves when a folder that gets a `socket` has nothing any more. */
async function emptied(folder: string): Promise<void> {
  const watcher = watch(folder);
  let seen = false;
  await new Promise<void>((resolve) => {
    // By the events' names: what is there by now may be gone again, or not all there yet.
    watcher.on('change', (_kind, name) => {
      seen ||= name === 'socket';
      if (seen && readdirSync(folder).length === 0) resolve();
    });
  });
  watcher.close();
}

test('a source that is not there, and a socket that cannot be made, are told', async (t) => {
  const folder = await temporaryFolder(t);
  await t.throwsAsync(VirtioFs.serve({ source: '/no/where', socketPath: join(folder, 's') }), {
    code: 'ERR_MOUNT_SOURCE',
  });
  await writeFile(join(folder, 'file'), '');
  await t.throwsAsync(VirtioFs.serve({ source: folder, socketPath: join(folder, 'file') }), {
    code: 'ERR_MOUNT_FAILED',
    message: /ended with exit code 1: Error creating listener/,
  });
});

test('microvm virtiofsd is the daemon: its options, streams, exit code and signals', async (t) => {
  const run = promisify(execFile);
  const { stdout } = await run(process.execPath, [MAIN, 'virtiofsd', '--print-capabilities']);
  t.is((JSON.parse(stdout) as { type: string }).type, 'fs');
  const entry = (await run(process.execPath, [MAIN, 'virtiofsd', '--print-vhost-user-json'])).stdout;
  t.like(JSON.parse(entry), { type: 'fs', binary: await realpath(virtiofsdPath()) });
  t.regex((await run(process.execPath, [MAIN, 'virtiofsd', '--help'])).stdout, /--inode-file-handles/);
  t.regex((await run(process.execPath, [MAIN, 'help', 'virtiofsd'])).stdout, /Usage\n {2}microvm virtiofsd/);
  const refused = await t.throwsAsync(run(process.execPath, [MAIN, 'virtiofsd', '--shared-dir', '/tmp']));
  t.like(refused, { code: 2 });

  const folder = await temporaryFolder(t);
  const socket = join(folder, 'socket');
  const daemon = spawn(process.execPath, [MAIN, 'virtiofsd', '--shared-dir', folder, '--socket-path', socket]);
  daemon.stderr.setEncoding('utf8');
  for await (const text of daemon.stderr) if (String(text).includes('Waiting for vhost-user')) break;
  daemon.kill('SIGTERM');
  const [code] = (await once(daemon, 'exit')) as [number];
  t.is(code, 1);
  await t.throwsAsync(access(socket), { code: 'ENOENT' });
});
