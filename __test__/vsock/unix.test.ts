import { once } from 'node:events';
import { stat, writeFile } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { MicroVMError } from '../../src/errors.ts';
import { connectToGuest, listenForGuest } from '../../src/vsock/unix.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

/** A vsock device's host end whose answers the test decides. */
async function makeDevice(t: ExecutionContext, onConnection: (socket: Socket) => void): Promise<string> {
  const path = join(await temporaryFolder(t), 'v');
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    t.teardown(() => socket.destroy());
    onConnection(socket);
  });
  server.listen(path);
  await once(server, 'listening');
  t.teardown(() => server.close());
  return path;
}

test('a connection to a guest port asks by CONNECT and carries bytes both ways afterwards', async (t) => {
  const path = await makeDevice(t, (socket) => {
    socket.once('data', (asked) => {
      t.is(asked.toString(), 'CONNECT 1025\n');
      socket.write('OK 1073741824\nhello');
      socket.once('data', (said) => socket.end(said));
    });
  });
  const connection = await connectToGuest(path, 1025);
  t.teardown(() => connection.destroy());
  connection.end('echo');
  let received = '';
  for await (const piece of connection) received += String(piece);
  t.is(received, 'helloecho');
});

test('an answer in single bytes is an answer', async (t) => {
  const path = await makeDevice(t, (socket) => {
    socket.setNoDelay();
    for (const byte of 'OK 7\n') socket.write(byte);
  });
  const connection = await connectToGuest(path, 1);
  connection.destroy();
  t.pass();
});

test('a device that hangs up has refused', async (t) => {
  const path = await makeDevice(t, (socket) => socket.end());
  await t.throwsAsync(connectToGuest(path, 99), { code: 'ERR_VSOCK_REFUSED', message: /port 99/ });
});

test('an answer that is none is a protocol error', async (t) => {
  const path = await makeDevice(t, (socket) => socket.write('HTTP/1.1 400 Bad Request\r\n'));
  await t.throwsAsync(connectToGuest(path, 1), { code: 'ERR_CHANNEL_PROTOCOL', message: /HTTP/ });
});

test('an endless first line is a protocol error', async (t) => {
  const path = await makeDevice(t, (socket) => socket.write('OK '.padEnd(1000, '1')));
  await t.throwsAsync(connectToGuest(path, 1), { code: 'ERR_CHANNEL_PROTOCOL' });
});

test('no answer times out', async (t) => {
  const path = await makeDevice(t, () => {});
  await t.throwsAsync(connectToGuest(path, 1, { timeoutMs: 20 }), { code: 'ERR_CHANNEL_TIMEOUT' });
});

test('no device gives the errno', async (t) => {
  const path = join(await temporaryFolder(t), 'v');
  await t.throwsAsync(connectToGuest(path, 1), { code: 'ERR_SOCKET_FAILED', message: /ENOENT/ });
});

test('aborting a connection attempt rejects with the reason as cause', async (t) => {
  const controller = new AbortController();
  const path = await makeDevice(t, () => controller.abort());
  const error = await t.throwsAsync(connectToGuest(path, 1, { signal: controller.signal }), {
    instanceOf: MicroVMError,
    code: 'ERR_ABORTED',
  });
  t.is(error.cause, controller.signal.reason);
  await t.throwsAsync(connectToGuest(path, 1, { signal: AbortSignal.abort() }), { code: 'ERR_ABORTED' });
});

test('the listener waits at <socket>_<port>, and its socket is gone after close', async (t) => {
  const socket = join(await temporaryFolder(t), 'v');
  const listener = await listenForGuest(socket, 1024);
  t.true((await stat(`${socket}_1024`)).isSocket());
  await listener.close();
  await t.throwsAsync(stat(`${socket}_1024`), { code: 'ENOENT' });
  await listener.close();
});

test('an aborted accept leaves the next connection to the next accept', async (t) => {
  const socket = join(await temporaryFolder(t), 'v');
  const listener = await listenForGuest(socket, 1);
  t.teardown(() => listener.close());
  const controller = new AbortController();
  const first = listener.accept(controller.signal);
  controller.abort(new Error('enough'));
  await t.throwsAsync(first, { message: 'enough' });
  const peer = connect(`${socket}_1`);
  const accepted = await listener.accept(new AbortController().signal);
  peer.end('hello');
  t.is(String((await once(accepted.resume(), 'data'))[0]), 'hello');
  accepted.destroy();
});

test('a path where something is already cannot be listened on', async (t) => {
  const socket = join(await temporaryFolder(t), 'v');
  await writeFile(`${socket}_1`, '');
  await t.throwsAsync(listenForGuest(socket, 1), { code: 'ERR_SOCKET_FAILED', message: /EADDRINUSE/ });
});

test('a path over 107 bytes is refused before anything is made', async (t) => {
  const socket = join(await temporaryFolder(t), 'x'.repeat(100));
  await t.throwsAsync(listenForGuest(socket, 1), { code: 'ERR_SOCKET_PATH_TOO_LONG' });
});
