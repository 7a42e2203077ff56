// The hybrid convention: a virtio-vsock device whose host end is a folder of Unix sockets. The guest's connection to host port P
// arrives at `<socket>_P`; the host reaches the guest's port P by writing `CONNECT P` to `<socket>` and reading `OK <host port>`.

import { connect, createServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { MicroVMError, errnoOf } from '../errors.ts';
import { checkSocketPath } from '../host/socket-path.ts';
import { CONNECT_TIMEOUT_MS, type ConnectOptions, aborted, refused, unanswered } from './connect-errors.ts';
import { type ConnectionListener, GuestConnections } from './guest-connections.ts';

/** `OK 4294967295` and a newline: a longer first line is no answer. */
const MAX_ANSWER_BYTES = 32;

/** Listens for the guest's connections to a host port (`<socket>_<port>`), of which the newest counts. */
export async function listenForGuest(socket: string, port: number): Promise<ConnectionListener> {
  let stop = (): void => {};
  const connections = new GuestConnections(() => stop());
  stop = await serveGuest(socket, port, 1, (connection) => connections.offer(connection));
  return connections;
}

/**
 * Hands each of the guest's connections to a host port to `take`, paused. At most `waiting` wait in the kernel until this
 * process comes to them. Gives what stops the listening; connections that were handed out stay open.
 */
export async function serveGuest(
  socket: string,
  port: number,
  waiting: number,
  take: (connection: Duplex) => void,
): Promise<() => void> {
  const path = checkSocketPath(`${socket}_${port}`);
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true });
  server.on('connection', take);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      const message = `Cannot listen on ${path} (${errnoOf(cause) ?? cause.message})`;
      reject(new MicroVMError('ERR_SOCKET_FAILED', message, { cause }));
    });
    server.listen({ path, backlog: waiting }, resolve);
  });
  server.removeAllListeners('error');
  // An accept that fails (no descriptors left) costs that one connection.
  server.on('error', () => {});
  return () => {
    // Closing waits for the connections handed out, which are not ours to end: only the listening socket matters here.
    if (server.listening) server.close();
  };
}

/** Connects to a port of the guest. */
export function connectToGuest(socket: string, port: number, options: ConnectOptions = {}): Promise<Duplex> {
  const { timeoutMs = CONNECT_TIMEOUT_MS, signal } = options;
  const path = checkSocketPath(socket);
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(aborted(port, signal));
    const connection = connect({ path, allowHalfOpen: true });
    let answer = Buffer.alloc(0);

    const settle = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      connection.off('error', onError).off('end', onEnd).off('data', onData);
    };
    const fail = (error: MicroVMError): void => {
      settle();
      connection.on('error', () => {});
      connection.destroy();
      reject(error);
    };
    const onAbort = (): void => fail(aborted(port, signal));
    const onError = (cause: Error): void => fail(unreachable(path, cause));
    const onEnd = (): void => fail(refused(port));
    const onData = (piece: Buffer): void => {
      answer = Buffer.concat([answer, piece]);
      const end = answer.indexOf('\n');
      if (end === -1 && answer.length < MAX_ANSWER_BYTES) return;
      const line = answer.toString('latin1', 0, end === -1 ? MAX_ANSWER_BYTES : end);
      if (!/^OK \d{1,10}$/.test(line)) return fail(notAnAnswer(line));
      settle();
      connection.pause();
      if (end + 1 < answer.length) connection.unshift(answer.subarray(end + 1));
      resolve(connection);
    };
    const timer = setTimeout(() => fail(unanswered(port, timeoutMs)), timeoutMs);
    signal?.addEventListener('abort', onAbort, { once: true });
    connection.on('error', onError).on('end', onEnd).on('data', onData);
    connection.write(`CONNECT ${port}\n`);
  });
}

function unreachable(path: string, cause: Error): MicroVMError {
  const message = `Cannot reach the vsock device at ${path} (${errnoOf(cause) ?? cause.message})`;
  return new MicroVMError('ERR_SOCKET_FAILED', message, { cause });
}

function notAnAnswer(line: string): MicroVMError {
  const message = `The vsock device answered ${JSON.stringify(line)} instead of OK`;
  return new MicroVMError('ERR_CHANNEL_PROTOCOL', message);
}
