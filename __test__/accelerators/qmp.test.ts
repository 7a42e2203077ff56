import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import test from 'ava';

import { QmpClient, type QmpEvent } from '../../src/accelerators/qemu/qmp.ts';
import { duplexPair } from '../helpers/duplex-pair.ts';

const GREETING = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 0 } }, capabilities: [] } };

interface FakeQemu {
  readonly stream: Duplex;
  say(message: unknown): void;
  /** The next command. */
  heard(): Promise<{ execute: string; arguments: unknown }>;
}

function fakeQemu(): { near: Duplex; qemu: FakeQemu } {
  const [near, stream] = duplexPair();
  stream.setEncoding('utf8');
  const qemu = {
    stream,
    say: (message: unknown) => void stream.write(`${JSON.stringify(message)}\r\n`),
    heard: async () => JSON.parse(((await once(stream, 'data')) as [string])[0]),
  };
  return { near, qemu };
}

async function connected(
  onEvent: (event: QmpEvent) => void = () => {},
): Promise<{ client: QmpClient; qemu: FakeQemu }> {
  const { near, qemu } = fakeQemu();
  const connecting = QmpClient.connect(near, 6, onEvent);
  qemu.say(GREETING);
  await qemu.heard();
  qemu.say({ return: {} });
  return { client: await connecting, qemu };
}

test('it greets, switches to command mode, and runs commands in order', async (t) => {
  const { client, qemu } = await connected();
  const first = client.execute('query-status');
  t.deepEqual(await qemu.heard(), { execute: 'query-status', arguments: {} });
  const second = client.execute('stop');
  t.is((await qemu.heard()).execute, 'stop');
  qemu.say({ return: { status: 'running' } });
  qemu.say({ return: {} });
  t.deepEqual(await first, { status: 'running' });
  t.deepEqual(await second, {});
});

test('events come apart from answers, also when a line arrives in pieces', async (t) => {
  const events: QmpEvent[] = [];
  const { client, qemu } = await connected((event) => events.push(event));
  const answer = client.execute('cont');
  await qemu.heard();
  const line = `${JSON.stringify({ event: 'SHUTDOWN', data: { reason: 'guest-reset' } })}\n`;
  qemu.stream.write(line.slice(0, 10));
  qemu.stream.write(line.slice(10));
  qemu.say({ return: {} });
  await answer;
  t.deepEqual(events, [{ event: 'SHUTDOWN', data: { reason: 'guest-reset' } }]);
});

test('a refused command rejects with what QEMU says', async (t) => {
  const { client, qemu } = await connected();
  const answer = client.execute('nonsense');
  await qemu.heard();
  qemu.say({ error: { class: 'CommandNotFound', desc: 'The command nonsense has not been found' } });
  await t.throwsAsync(answer, { code: 'ERR_QEMU_FAILED', message: /nonsense has not been found/ });
});

test('an old QEMU is refused by its greeting', async (t) => {
  const { near, qemu } = fakeQemu();
  const connecting = QmpClient.connect(near, 6, () => {});
  qemu.say({ QMP: { version: { qemu: { major: 5, minor: 2, micro: 1 } } } });
  await t.throwsAsync(connecting, { code: 'ERR_QEMU_TOO_OLD', message: /5\.2\.1/ });
});

test('a connection that ends rejects what runs and what comes later', async (t) => {
  const { client, qemu } = await connected();
  const answer = client.execute('query-status');
  qemu.stream.destroy();
  await t.throwsAsync(answer, { code: 'ERR_QEMU_FAILED' });
  await t.throwsAsync(client.execute('cont'), { code: 'ERR_QEMU_FAILED' });
});

test('something that does not speak QMP is an error, not a hang', async (t) => {
  const { near, qemu } = fakeQemu();
  const connecting = QmpClient.connect(near, 6, () => {});
  qemu.stream.write('SSH-2.0-OpenSSH\n');
  await t.throwsAsync(connecting, { code: 'ERR_QEMU_FAILED', message: /not JSON/ });
});

test('a line without end does not fill the memory', async (t) => {
  const { near, qemu } = fakeQemu();
  const connecting = QmpClient.connect(near, 6, () => {});
  qemu.stream.on('error', () => {});
  qemu.stream.write('x'.repeat(2 ** 21));
  await t.throwsAsync(connecting, { code: 'ERR_QEMU_FAILED', message: /without end/ });
});
