// Small TCP and Unix servers and clients for tests of forwarded ports.

import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import type { ExecutionContext } from 'ava';

/** A server of this host that is gone when the test ends; `path` makes it one of a Unix socket. */
export async function serve(
  t: ExecutionContext,
  onConnection: (socket: Socket) => void,
  path?: string,
): Promise<{ readonly port: number; readonly server: Server; readonly sockets: Set<Socket> }> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).once('close', () => sockets.delete(socket));
    onConnection(socket);
  });
  if (path === undefined) server.listen(0, '127.0.0.1');
  else server.listen(path);
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return { port: path === undefined ? (server.address() as AddressInfo).port : 0, server, sockets };
}

/** A connection that is gone when the test ends; `host` is where a port is. */
export async function dial(t: ExecutionContext, to: number | string, host = '127.0.0.1'): Promise<Socket> {
  const target = typeof to === 'number' ? { port: to, host } : { path: to };
  const socket = connect({ ...target, allowHalfOpen: true });
  t.teardown(() => socket.destroy());
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}

/** All that a stream gives until its end. */
export async function textOf(stream: AsyncIterable<unknown>): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of stream) pieces.push(Buffer.from(piece as Buffer));
  return Buffer.concat(pieces).toString();
}

/** How a connection ended: the errno's name, or `end`. */
export async function endOf(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    let how = 'end';
    socket.once('error', (error: NodeJS.ErrnoException) => (how = error.code ?? 'error'));
    socket.once('close', () => resolve(how));
    socket.once('end', () => socket.end());
    socket.resume();
  });
}

/** Writes until the other side takes no more; gives how many bytes that took. */
export async function fill(socket: Socket, limit: number): Promise<number> {
  const piece = Buffer.alloc(64 * 1024, 'x');
  let written = 0;
  while (written < limit) {
    const taken = socket.write(piece);
    written += piece.length;
    if (taken) continue;
    const drained = once(socket, 'drain', { signal: AbortSignal.timeout(700) }).then(
      () => true,
      () => false,
    );
    if (!(await drained)) return written;
  }
  return written;
}
