// `microvm run --publish` as a user meets it: a server of the guest, clients of this host, and the end of both.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { type ExecutionContext } from 'ava';

import { type AcceleratorName, PATIENCE_MS } from '../guest.ts';
import { dial, endOf, textOf } from '../tcp.ts';
import { temporaryFolder } from '../temporary-folder.ts';
import { MAIN } from './command-line.ts';

/** It listens when it says so, and the shell's place is taken by what signals end. */
const SERVER =
  'mkdir /www && echo "hello from the guest" > /www/index.html && httpd -p 127.0.0.1:80 -h /www && echo up && exec sleep 1000';

/** Declares the tests; each starts a process and a guest of its own. */
export function publishBehaviours(accelerator: AcceleratorName): void {
  const publish = (t: ExecutionContext, words: readonly string[], command: string): ChildProcess => {
    const run = ['run', '--accelerator', accelerator, '--boot-timeout', String(PATIENCE_MS)];
    const args = [MAIN, ...run, ...words, '--', 'sh', '-c', command];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    t.teardown(() => child.kill('SIGKILL'));
    return child;
  };

  for (const [signal, exitCode] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    test.serial(`a published port and socket reach the guest, and ${signal} leaves no listener`, async (t) => {
      const socket = join(await temporaryFolder(t), 'http.sock');
      const child = publish(t, ['--publish', '0:80', '-p', `${socket}:80`], SERVER);
      const exited = once(child, 'exit');
      const [[told], [said]] = (await Promise.all(
        [child.stderr, child.stdout].map((stream) => once(createInterface(stream as NodeJS.ReadableStream), 'line')),
      )) as [[string], [string]];
      t.is(said, 'up');
      const port = Number(/^microvm: port 80 of the guest is at 127\.0\.0\.1 port (\d+)$/.exec(told)?.[1]);
      t.true(port > 0, told);
      t.is((await stat(socket)).mode & 0o777, 0o600);

      const get = async (to: number | string): Promise<string> => {
        const client = await dial(t, to);
        client.end('GET / HTTP/1.0\r\n\r\n');
        return textOf(client);
      };
      const answers = await Promise.all([...Array.from({ length: 10 }, () => get(port)), get(socket), get(socket)]);
      for (const answer of answers) t.regex(answer, /^HTTP\/1\.\d 200 OK\r\n[^]*\r\n\r\nhello from the guest\n$/);

      // Somebody who stays keeps nobody from ending.
      const idle = [await dial(t, port), await dial(t, socket)].map((client) => endOf(client));
      child.kill(signal);
      t.deepEqual(await exited, [exitCode, null]);
      await Promise.all(idle);
      await t.throwsAsync(dial(t, port), { code: 'ECONNREFUSED' });
      await t.throwsAsync(stat(socket), { code: 'ENOENT' });
    });
  }

  test.serial('a run that is interrupted while it boots gives its ports back', async (t) => {
    const socket = join(await temporaryFolder(t), 'early.sock');
    const child = publish(t, ['--console', '--publish', `${socket}:80`], 'sleep 1000');
    const exited = once(child, 'exit');
    // The first words are the kernel's: there is no agent yet.
    await once(child.stderr as NodeJS.ReadableStream, 'data');
    const waiting = endOf(await dial(t, socket));
    child.kill('SIGINT');
    child.stderr?.resume();
    t.deepEqual(await exited, [130, null]);
    await waiting;
    await t.throwsAsync(stat(socket), { code: 'ENOENT' });
  });
}
