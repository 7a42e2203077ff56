// The host's own vsock as the package's transport, over a vsock of the test's own: real ones are in the lab.

import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import test from 'ava';

import { MicroVMError } from '../../src/errors.ts';
import type { VhostVsock } from '../../src/host/vhost-vsock.ts';
import { afVsockTransport } from '../../src/vsock/af-vsock.ts';
import { duplexPair } from '../helpers/duplex-pair.ts';

/** A vsock on which the test plays the guest. */
function fakeVsock(connect: () => Promise<Duplex> = () => Promise.reject(new Error('unasked'))) {
  const [arrivals, tells] = duplexPair();
  const waiting: Duplex[] = [];
  const log: string[] = [];
  const vsock = {
    listen(port: number) {
      log.push(`listen ${port}`);
      return arrivals;
    },
    take: () => waiting.shift(),
    stopListening: (port: number) => log.push(`stop ${port}`),
    connect,
  } as unknown as VhostVsock;
  return {
    transport: afVsockTransport(vsock),
    log,
    arrivals,
    /** The guest connects; its end. */
    dial(): Duplex {
      const [near, far] = duplexPair();
      waiting.push(far);
      return near;
    },
    tell: () => tells.write('!'),
  };
}

const never = new AbortController().signal;

test('a connection of the guest is accepted, and carries bytes both ways', async (t) => {
  const { transport, log, dial, tell } = fakeVsock();
  const listener = await transport.listen(1024);
  const accepted = listener.accept(never);
  const guest = dial();
  tell();
  const host = await accepted;
  guest.write('hello');
  t.is(String((await once(host, 'data'))[0]), 'hello');
  host.write('good day');
  t.is(String((await once(guest, 'data'))[0]), 'good day');
  await listener.close();
  t.deepEqual(log, ['listen 1024', 'stop 1024']);
});

test('of several that come before anybody accepts, the newest counts, told of once or more', async (t) => {
  for (const tellings of [1, 5]) {
    const { transport, dial, tell, arrivals } = fakeVsock();
    const listener = await transport.listen(1);
    const [first, second] = [dial(), dial()];
    const heard = once(arrivals, 'data');
    for (let count = 0; count < tellings; count++) tell();
    await heard;
    const host = await listener.accept(never);
    second.write('second');
    t.is(String((await once(host, 'data'))[0]), 'second');
    if (!first.closed) await once(first.resume(), 'close');
    await listener.close();
  }
});

test('a listener that is closed takes no more', async (t) => {
  const { transport, arrivals } = fakeVsock();
  const listener = await transport.listen(1);
  await listener.close();
  t.true(arrivals.destroyed);
});

test('a dial gives the connection', async (t) => {
  const [near] = duplexPair();
  const { transport } = fakeVsock(() => Promise.resolve(near));
  t.is(await transport.dial(7), near);
});

for (const [native, code, message] of [
  ['ERR_VSOCK_REFUSED', 'ERR_VSOCK_REFUSED', /refused the connection to port 7$/],
  ['ERR_CHANNEL_TIMEOUT', 'ERR_CHANNEL_TIMEOUT', /did not answer on port 7 within 50 ms$/],
  ['ERR_SOCKET_FAILED', 'ERR_SOCKET_FAILED', /as it was/],
] as const) {
  test(`a dial that fails with ${native} has the words of every transport`, async (t) => {
    const { transport } = fakeVsock(() => Promise.reject(new MicroVMError(native, 'as it was')));
    await t.throwsAsync(transport.dial(7, { timeoutMs: 50 }), { code, message });
  });
}

test('an aborted dial rejects at once, and a connection that comes later is closed', async (t) => {
  const [near] = duplexPair();
  const arrivals: ((stream: Duplex) => void)[] = [];
  const { transport } = fakeVsock(() => new Promise((resolve) => arrivals.push(resolve)));
  const abort = new AbortController();
  const dialled = transport.dial(7, { signal: abort.signal });
  abort.abort(new Error('changed my mind'));
  await t.throwsAsync(dialled, { code: 'ERR_ABORTED' });
  for (const arrive of arrivals) arrive(near);
  if (!near.closed) await once(near, 'close');
  t.true(near.destroyed);
  await t.throwsAsync(transport.dial(7, { signal: AbortSignal.abort() }), { code: 'ERR_ABORTED' });
});
