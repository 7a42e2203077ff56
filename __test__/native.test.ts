import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import test from 'ava';

import { agentPath, loadBinding, packageVersion } from '../src/native.ts';

const require = createRequire(import.meta.url);

test('the addon has every function and class that src/binding.ts names', (t) => {
  const source = readFileSync(new URL('../src/binding.ts', import.meta.url), 'utf8');
  const body = /export interface Binding [^{]*\{([\s\S]*?)\n\}/.exec(source)?.[1] ?? '';
  const named = [...body.matchAll(/^ {2}(?:readonly )?(\w+)[(:]/gm)].map(([, name]) => name as string);
  t.true(named.length >= 6);
  const binding = loadBinding() as unknown as Record<string, unknown>;
  t.deepEqual(
    named.filter((name) => typeof binding[name] !== 'function'),
    [],
  );
});

test('the agent lies beside the addon', (t) => {
  t.true(existsSync(agentPath()));
});

test('the version is the one of the package', (t) => {
  t.is(packageVersion(), (require('../package.json') as { version: string }).version);
});

test('a helper process can be started, read and waited for', async (t) => {
  const child = loadBinding().spawnHelper({
    program: 'sh',
    args: ['-c', 'exit 3'],
    env: { PATH: process.env['PATH'] ?? '' },
    fds: [],
    captureStderr: false,
  });
  t.is(child.takeStderr(), null);
  t.deepEqual({ ...(await child.wait()) }, { code: 3 });
  t.notThrows(() => child.kill(9), 'a signal that comes too late is no error');
});

test('a program that is not there is a typed error with the errno', (t) => {
  const error = t.throws(
    () => loadBinding().spawnHelper({ program: 'no-such-program', args: [], env: {}, fds: [], captureStderr: false }),
    { code: 'ERR_SPAWN_FAILED' },
  ) as Error & { errno: number };
  t.is(error.errno, 2);
});

test('a descriptor that is not open is refused', (t) => {
  t.throws(
    () =>
      loadBinding().spawnHelper({
        program: 'true',
        args: [],
        env: {},
        fds: [{ fd: 9999, target: 3 }],
        captureStderr: false,
      }),
    { code: 'ERR_NATIVE_FAILED' },
  );
});

test('a vsock device in a folder that is not there is a typed error', (t) => {
  t.throws(
    () =>
      loadBinding().serveVsock({ guestCid: 3, socket: '/no/such/folder/vsock', vhostUserSocket: '/no/such/folder/d' }),
    { code: 'ERR_SOCKET_FAILED' },
  );
});
