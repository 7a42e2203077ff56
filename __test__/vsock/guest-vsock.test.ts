// Streams of programs over a transport of the test's own, whose guest is hostile.

import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import test from 'ava';

import { MicroVMError } from '../../src/errors.ts';
import { GuestVsock } from '../../src/vsock/guest-vsock.ts';
import type { Transport } from '../../src/vsock/transport.ts';
import { duplexPair } from '../helpers/duplex-pair.ts';

const OVER = new MicroVMError('ERR_MACHINE_EXITED', 'It is over');

function fakeGuest() {
  let offer: (connection: Duplex) => void = () => {};
  const log: string[] = [];
  const transport = {
    dial: (_port: number, { signal }: { readonly signal?: AbortSignal } = {}) =>
      new Promise<never>((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason))),
    serve: async (port: number, take: (connection: Duplex) => void) => {
      log.push(`serve ${port}`);
      offer = take;
      return () => void log.push(`stop ${port}`);
    },
  } as unknown as Transport;
  return {
    vsock: new GuestVsock(transport, [1024, 1025, 1024]),
    log,
    /** The guest connects; its end. */
    dial(): Duplex {
      const [near, far] = duplexPair();
      near.on('error', () => {});
      // As transports hand it over.
      far.pause();
      offer(far);
      return near;
    },
  };
}

const closed = (connections: readonly Duplex[]): Promise<number> =>
  new Promise((resolve) => setImmediate(() => resolve(connections.filter(({ destroyed }) => destroyed).length)));

test('of connections that nobody takes the newest are closed, and of all that are open too', async (t) => {
  const { vsock, dial } = fakeGuest();
  const server = await vsock.listen(1);
  const flood = Array.from({ length: 2_000 }, dial);
  t.is(await closed(flood), 2_000 - 128);
  const taken: Duplex[] = [];
  server.on('connection', (connection) => void taken.push(connection));
  const more = Array.from({ length: 2_000 }, dial);
  await closed(more);
  t.is(taken.length, 1_024);
  taken[0]?.destroy();
  await once(taken[0] as Duplex, 'close');
  dial();
  t.is(taken.length, 1_025);
  await vsock.close(OVER);
  t.true(taken.every(({ destroyed }) => destroyed));
});

test('a connection is not read before somebody asks, and then by any way of reading', async (t) => {
  const { vsock, dial } = fakeGuest();
  const server = await vsock.listen(1);
  const ways: readonly ((stream: Duplex, take: (piece: Buffer) => void) => void)[] = [
    (stream, take) => void stream.on('data', take),
    (stream, take) => void stream.on('readable', () => take(stream.read() as Buffer)),
    (stream, take) =>
      void stream[Symbol.asyncIterator]()
        .next()
        .then(({ value }) => take(value as Buffer)),
  ];
  for (const read of ways) {
    const arrived = once(server, 'connection');
    const guest = dial();
    const [stream] = (await arrived) as [Duplex];
    guest.write('hello');
    await closed([]);
    t.not(stream.readableFlowing, true);
    const piece = await new Promise<Buffer>((resolve) => read(stream, resolve));
    t.is(String(piece), 'hello');
    stream.destroy();
  }
  await vsock.close(OVER);
});

test('a connection that breaks ends nothing but itself', async (t) => {
  const { vsock, dial } = fakeGuest();
  const server = await vsock.listen(1);
  dial();
  const { value } = await server[Symbol.asyncIterator]().next();
  const connection = value as Duplex;
  connection.destroy(new Error('read ECONNRESET'));
  await new Promise((resolve) => connection.once('close', resolve));
  t.true(server.listening);
});

test('a listener ends its iterations, gives its port back, and closes once', async (t) => {
  const { vsock, log } = fakeGuest();
  const server = await vsock.listen(7);
  await t.throwsAsync(vsock.listen(7), { code: 'ERR_VSOCK_PORT_TAKEN', message: /already/ });
  const waiting = Promise.all([server[Symbol.asyncIterator]().next(), server[Symbol.asyncIterator]().next()]);
  await Promise.all([server.close(), server.close(), server[Symbol.asyncDispose]()]);
  t.deepEqual(await waiting, [
    { done: true, value: undefined },
    { done: true, value: undefined },
  ]);
  await vsock.listen(7);
  t.deepEqual(log, ['serve 7', 'stop 7', 'serve 7']);
});

test('the end of the machine ends attempts and listeners, with its reason', async (t) => {
  const { vsock, log } = fakeGuest();
  const connecting = vsock.connect(5);
  const server = await vsock.listen(6);
  const over = once(server, 'close');
  await vsock.close(OVER);
  await over;
  t.is(await t.throwsAsync(connecting), OVER);
  t.is(await t.throwsAsync(vsock.connect(5)), OVER);
  t.is(await t.throwsAsync(vsock.listen(5)), OVER);
  t.deepEqual(log, ['serve 6', 'stop 6']);
});

test('an attempt can be given up', async (t) => {
  const { vsock } = fakeGuest();
  const abort = new AbortController();
  const connecting = vsock.connect(5, { signal: abort.signal });
  abort.abort(new Error('changed my mind'));
  await t.throwsAsync(connecting, { message: 'changed my mind' });
});
