// The socket of a device that has none, over a guest of the test's own: a real one is in the lab.

import { once } from 'node:events';
import { access } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import test, { type ExecutionContext } from 'ava';

import { serveHybrid } from '../../src/vsock/hybrid-server.ts';
import { connectToGuest } from '../../src/vsock/unix.ts';
import { duplexPair } from '../helpers/duplex-pair.ts';
import { dial, endOf, fill, textOf } from '../helpers/tcp.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

interface Served {
  readonly path: string;
  /** The ports that the guest was asked for. */
  readonly asked: number[];
  close(): Promise<void>;
}

/** A guest whose ports `guest` answers. */
async function served(t: ExecutionContext, guest: (far: Duplex) => void = () => {}): Promise<Served> {
  const path = join(await temporaryFolder(t), 'vsock');
  const asked: number[] = [];
  const close = await serveHybrid(path, async (port) => {
    asked.push(port);
    if (port === 99) throw new Error('Nobody listens there');
    const [near, far] = duplexPair();
    guest(far);
    return near;
  });
  t.teardown(close);
  return { path, asked, close };
}

async function said(t: ExecutionContext, path: string, words: string): Promise<Socket> {
  const socket = await dial(t, path);
  socket.write(words);
  return socket;
}

test('who asks for a port is joined to it, and either half ends by itself', async (t) => {
  const { path, asked } = await served(t, (far) => {
    void textOf(far).then((text) => far.end(`heard ${text.length}`));
  });
  const talks = [1, 100_000, 3_000_000].map(async (length) => {
    const connection = await connectToGuest(path, 1025);
    connection.end('x'.repeat(length));
    return textOf(connection);
  });
  t.deepEqual(await Promise.all(talks), ['heard 1', 'heard 100000', 'heard 3000000']);
  t.deepEqual(asked, [1025, 1025, 1025]);
});

test('a line in pieces is a line, and what comes right behind it is the guest’s', async (t) => {
  const { path } = await served(t, (far) => far.pipe(far));
  const socket = await dial(t, path);
  socket.setNoDelay();
  for (const piece of ['CONN', 'ECT 7', '\r\nand ', 'more']) socket.write(piece);
  socket.end();
  t.is(await textOf(socket), 'OK 7\nand more');
});

test('a port that the guest refuses is refused', async (t) => {
  const { path } = await served(t);
  await t.throwsAsync(connectToGuest(path, 99), { code: 'ERR_VSOCK_REFUSED' });
});

test('who asks for nothing is hung up on, and the guest is not troubled', async (t) => {
  const { path, asked } = await served(t);
  for (const words of [
    'GET / HTTP/1.1\r\n',
    'CONNECT 4294967296\n',
    'CONNECT -1\n',
    'CONNECT 7 \n',
    'x'.repeat(32),
    '\n',
  ]) {
    t.is(await endOf(await said(t, path, words)), 'end', words);
  }
  const silent = await dial(t, path);
  silent.end('CONNECT 7');
  t.is(await endOf(silent), 'end');
  t.deepEqual(asked, []);
});

test('a guest that does not read holds its client up', async (t) => {
  const { path } = await served(t);
  const connection = (await connectToGuest(path, 7)) as Socket;
  t.teardown(() => connection.destroy());
  const limit = 16 * 2 ** 20;
  t.true((await fill(connection, limit)) < limit);
});

test('what breaks on one side breaks the other', async (t) => {
  const guests: Duplex[] = [];
  const { path } = await served(t, (far) => void guests.push(far));
  const [first, second] = [await connectToGuest(path, 7), await connectToGuest(path, 7)];
  guests[0]?.destroy();
  await once(first.resume(), 'end');
  const gone = once(guests[1]?.resume() as Duplex, 'close');
  // The guest's next bytes have nowhere to go.
  guests[1]?.write('x'.repeat(1_000_000));
  second.destroy();
  await gone;
  t.pass();
});

test('closing it ends its connections, and takes the socket away', async (t) => {
  const { path, close } = await served(t);
  const joined = await connectToGuest(path, 7);
  const asking = await dial(t, path);
  const ended = [once(joined.resume(), 'end'), endOf(asking)];
  await close();
  await Promise.all(ended);
  await t.throwsAsync(access(path), { code: 'ENOENT' });
  t.like(await once(connect(path), 'error'), [{ code: 'ENOENT' }]);
});
