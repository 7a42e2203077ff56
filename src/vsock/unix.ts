// The hybrid convention: a virtio-vsock device whose host end is a folder of Unix sockets. The guest's connection to host port P
// arrives at `<socket>_P`; the host reaches the guest's port P by writing `CONNECT P` to `<socket>` and reading `OK <host port>`.

import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { MicroVMError, errnoOf } from '../errors.ts';
import { checkSocketPath } from '../host/socket-path.ts';

/** Something that hands out connections which guests opened, one after another. */
export interface ConnectionListener {
  /** The next connection. It is paused until read. Rejects with the signal's reason. One call at a time. */
  accept(signal: AbortSignal): Promise<Duplex>;
  /** Stops listening and closes a waiting connection; connections handed out stay open. */
  close(): Promise<void>;
}

export interface ConnectOptions {
  /** Milliseconds to wait for the guest's answer. @default 10000 */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** `OK 4294967295` and a newline: a longer first line is no answer. */
const MAX_ANSWER_BYTES = 32;

/** Listens for the guest's connections to a host port (`<socket>_<port>`). */
export async function listenForGuest(socket: string, port: number): Promise<ConnectionListener> {
  const path = checkSocketPath(`${socket}_${port}`);
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      const message = `Cannot listen on ${path} (${errnoOf(cause) ?? cause.message})`;
      reject(new MicroVMError('ERR_SOCKET_FAILED', message, { cause }));
    });
    server.listen({ path, backlog: 1 }, resolve);
  });
  return new GuestConnections(server);
}

/**
 * Node accepts whatever the kernel has, so the backlog of one is kept here: one connection may wait, and a newer one takes its place,
 * because an agent dials again only after it has given up its last connection.
 */
class GuestConnections implements ConnectionListener {
  readonly #server: Server;
  #waiting: Socket | undefined;
  #taker: ((connection: Socket) => void) | undefined;

  constructor(server: Server) {
    this.#server = server;
    server.removeAllListeners('error');
    // An accept that fails (no descriptors left) costs that one connection.
    server.on('error', () => {});
    server.on('connection', (connection) => this.#offer(connection));
  }

  #offer(connection: Socket): void {
    if (this.#taker) return this.#taker(connection);
    this.#waiting?.destroy();
    this.#waiting = connection;
    // Without a listener, a reset while it waits would end the process.
    connection.on('error', () => {});
  }

  accept(signal: AbortSignal): Promise<Duplex> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      if (this.#waiting) {
        resolve(this.#waiting);
        this.#waiting = undefined;
        return;
      }
      const abort = (): void => {
        this.#taker = undefined;
        reject(signal.reason);
      };
      signal.addEventListener('abort', abort, { once: true });
      this.#taker = (connection) => {
        this.#taker = undefined;
        signal.removeEventListener('abort', abort);
        resolve(connection);
      };
    });
  }

  close(): Promise<void> {
    this.#waiting?.destroy();
    this.#waiting = undefined;
    // Closing waits for the connections handed out, which are not ours to end: only the listening socket matters here.
    if (this.#server.listening) this.#server.close();
    return Promise.resolve();
  }
}

/** Connects to a port of the guest. */
export function connectToGuest(socket: string, port: number, options: ConnectOptions = {}): Promise<Duplex> {
  const { timeoutMs = 10_000, signal } = options;
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
    const timer = setTimeout(() => {
      fail(new MicroVMError('ERR_CHANNEL_TIMEOUT', `The guest did not answer on port ${port} within ${timeoutMs} ms`));
    }, timeoutMs);
    signal?.addEventListener('abort', onAbort, { once: true });
    connection.on('error', onError).on('end', onEnd).on('data', onData);
    connection.write(`CONNECT ${port}\n`);
  });
}

function unreachable(path: string, cause: Error): MicroVMError {
  const message = `Cannot reach the vsock device at ${path} (${errnoOf(cause) ?? cause.message})`;
  return new MicroVMError('ERR_SOCKET_FAILED', message, { cause });
}

function refused(port: number): MicroVMError {
  return new MicroVMError('ERR_VSOCK_REFUSED', `The guest refused the connection to port ${port}`, {
    hint: 'Check that a program in the guest listens on that vsock port.',
  });
}

function notAnAnswer(line: string): MicroVMError {
  const message = `The vsock device answered ${JSON.stringify(line)} instead of OK`;
  return new MicroVMError('ERR_CHANNEL_PROTOCOL', message);
}

function aborted(port: number, signal: AbortSignal | undefined): MicroVMError {
  return new MicroVMError('ERR_ABORTED', `The connection to port ${port} was aborted`, { cause: signal?.reason });
}
