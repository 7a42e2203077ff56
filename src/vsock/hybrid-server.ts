// The hybrid convention's socket for a device that has none of its own, as the kernel's: whoever writes `CONNECT P` to it reads
// `OK P`, and is joined to the guest's port P. It is how other programs of this user reach a guest, whatever carries its streams.

import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { errnoOf, MicroVMError } from '../errors.ts';
import { checkSocketPath } from '../host/socket-path.ts';
import { type Transport, WAITING_CONNECTIONS } from './transport.ts';

/** As many as our own device takes. */
const MAX_CLIENTS = 1024;
/** Milliseconds that a client may take for its line, as with our own device. */
const LINE_MS = 5_000;
/** `CONNECT 4294967295\r\n` takes 20: a longer line asks for nothing. */
const MAX_LINE_BYTES = 32;
const LAST_PORT = 2 ** 32 - 1;

/**
 * Serves the guest's ports at a Unix socket, for whoever may enter its folder. Gives what closes it, with its connections.
 *
 * @throws {MicroVMError} `ERR_SOCKET_FAILED`, `ERR_SOCKET_PATH_TOO_LONG`
 */
export async function serveHybrid(path: string, dial: Transport['dial']): Promise<() => Promise<void>> {
  const clients = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (client) => {
    // A client that breaks off must not end this process.
    client.on('error', () => {});
    clients.add(client);
    client.once('close', () => clients.delete(client));
    void serve(client, dial);
  });
  server.maxConnections = MAX_CLIENTS;
  // It is the machine that keeps its process, not who might ask for it.
  server.unref();
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      const message = `Cannot listen on ${path} (${errnoOf(cause) ?? cause.message})`;
      reject(new MicroVMError('ERR_SOCKET_FAILED', message, { cause }));
    });
    server.listen({ path: checkSocketPath(path), backlog: WAITING_CONNECTIONS }, resolve);
  });
  server.removeAllListeners('error');
  // An accept that fails (no descriptors left) costs that one connection.
  server.on('error', () => {});
  return async () => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const client of clients) client.destroy();
    await closed;
  };
}

async function serve(client: Socket, dial: Transport['dial']): Promise<void> {
  try {
    const port = portOf(await firstLine(client));
    if (port === undefined) return void client.destroy();
    const guest = await dial(port);
    // It left while the guest was asked.
    if (client.destroyed) return void guest.destroy();
    client.write(`OK ${port}\n`);
    join(client, guest);
  } catch {
    // The guest refused it, or it did not ask in time: the end of its stream tells both.
    client.destroy();
  }
}

/** The port that a line asks for. */
function portOf(line: string): number | undefined {
  const [, digits] = /^CONNECT (\d{1,10})\r?\n$/.exec(line) ?? [];
  const port = Number(digits);
  return port <= LAST_PORT ? port : undefined;
}

/** What the client says first, up to a newline or the limit; what follows is left unread. Rejects where it does not come. */
async function firstLine(client: Socket): Promise<string> {
  const over = new AbortController();
  const giveUp = (): void => over.abort();
  const timer = setTimeout(giveUp, LINE_MS);
  client.once('end', giveUp).once('close', giveUp);
  try {
    let line = '';
    while (!line.endsWith('\n') && line.length < MAX_LINE_BYTES) {
      const byte = client.read(1) as Buffer | null;
      if (byte === null) await once(client, 'readable', { signal: over.signal });
      else line += byte.toString('latin1');
    }
    return line;
  } finally {
    clearTimeout(timer);
    client.off('end', giveUp).off('close', giveUp);
  }
}

/** Bytes, ends and back-pressure go both ways, and what breaks on one side breaks the other. */
function join(client: Duplex, guest: Duplex): void {
  const ways = [
    [client, guest],
    [guest, client],
  ] as const;
  for (const [one, other] of ways) {
    one.on('error', () => {});
    one.once('close', () => {
      // After both ends the other side is over by itself, once it has taken what was written.
      if (!(one.readableEnded && one.writableFinished)) other.destroy();
    });
    one.pipe(other);
  }
}
