// A port of the guest on this host: connections that are made here go on in the guest.

import { createServer, type Server, type Socket } from 'node:net';
import { rmSync } from 'node:fs';
import type { ForwardSpec, HostAddress } from '../config/machine-spec.ts';
import { errnoOf, MicroVMError } from '../errors.ts';
import { deferred } from '../host/deferred.ts';
import { privateListener } from '../host/descriptor.ts';
import { checkSocketPath } from '../host/socket-path.ts';
import type { PortAddress, PortForward, PortHost } from './port-forward.ts';
import { breakOff, join, reset } from './tunnel.ts';

/** Listens on this host, and joins each connection to a new one in the guest. */
export class HostListener implements PortForward {
  readonly #host: PortHost;
  readonly #guest: ForwardSpec['guest'];
  readonly #server: Server;
  readonly #address: PortAddress;
  readonly #open = new Set<Socket>();
  readonly #closed = deferred<void>();
  #isClosed = false;

  private constructor(host: PortHost, guest: ForwardSpec['guest'], server: Server, address: PortAddress) {
    this.#host = host;
    this.#guest = guest;
    this.#server = server;
    this.#address = address;
    server.on('connection', (socket) => void this.#serve(socket));
  }

  /** Resolves when it listens. Throws `ERR_PORT_TAKEN`, `ERR_SOCKET_PATH_TOO_LONG`, `ERR_SOCKET_FAILED`. */
  static async open(host: PortHost, { guest, host: address }: ForwardSpec): Promise<HostListener> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true });
    await listen(server, address);
    return new HostListener(host, guest, server, addressOf(server, address));
  }

  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  address(): PortAddress {
    return this.#address;
  }

  async close(): Promise<void> {
    if (!this.#isClosed) {
      this.closeSync();
      this.#isClosed = true;
      this.#server.close(() => this.#closed.resolve());
      for (const socket of this.#open) reset(socket);
    }
    return this.#closed.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @internal What is left of it when the process exits: a Unix socket's file. */
  closeSync(): void {
    if (!this.#isClosed && this.#address.port === undefined) rmSync(this.#address.address, { force: true });
  }

  async #serve(socket: Socket): Promise<void> {
    socket.on('error', () => {});
    if (!this.#host.enter()) return reset(socket);
    this.#open.add(socket);
    try {
      await this.#joinToGuest(socket);
    } catch {
      // The guest refused it, or cannot be reached: whoever has connected is told as the network tells it.
      reset(socket);
    } finally {
      this.#open.delete(socket);
      this.#host.leave();
    }
  }

  async #joinToGuest(socket: Socket): Promise<void> {
    const api = await this.#host.api;
    const stream = await api.open('POST', `/v1/connect?${placeOf(this.#guest)}`);
    const giveUp = (): void => breakOff(stream);
    socket.once('close', giveUp);
    if (socket.destroyed) giveUp();
    await api.answerTo(stream);
    socket.off('close', giveUp);
    await join(socket, stream);
  }
}

/** A port or path of the guest, as the agent takes it. */
export function placeOf(guest: number | string): string {
  return typeof guest === 'number' ? `port=${guest}` : `path=${encodeURIComponent(guest)}`;
}

async function listen(server: Server, address: HostAddress): Promise<void> {
  if ('path' in address) checkSocketPath(address.path, 'caller');
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      const target =
        'path' in address ? { fd: privateListener(address.path) } : { host: address.address, port: address.port };
      server.listen(target, resolve);
    });
  } catch (cause) {
    throw notListening(address, cause as Error);
  }
  server.removeAllListeners('error');
  // An accept that fails (no descriptors left) costs that one connection.
  server.on('error', () => {});
}

function addressOf(server: Server, address: HostAddress): PortAddress {
  if ('path' in address) return { address: address.path, port: undefined };
  const bound = server.address();
  return typeof bound === 'object' && bound ? { address: bound.address, port: bound.port } : address;
}

function notListening(address: HostAddress, cause: Error): MicroVMError {
  const where = 'path' in address ? address.path : `${address.address} port ${address.port}`;
  const errno = errnoOf(cause);
  const [code, message] =
    errno === 'EADDRINUSE'
      ? (['ERR_PORT_TAKEN', `Something else listens at ${where} of this host`] as const)
      : (['ERR_SOCKET_FAILED', `Cannot listen at ${where} of this host (${errno ?? cause.message})`] as const);
  return new MicroVMError(code, message, { cause, hint: HINTS['path' in address ? 'path' : 'port'][errno ?? ''] });
}

const HINTS: Readonly<Record<'path' | 'port', Readonly<Record<string, string>>>> = {
  path: {
    EADDRINUSE: 'Remove the file where no program listens there any more, or choose another path.',
    ENOENT: 'Make the folder that it is to be in first.',
    EACCES: 'Choose a folder that this user may write to.',
    ENOTSUP: 'Forward to a TCP port, or have the primary process run the machine.',
  },
  port: {
    EADDRINUSE: 'Choose another port, or 0 for a free one.',
    EADDRNOTAVAIL: "Choose an address of this host, as `ip address` lists them; '0.0.0.0' stands for all.",
    EACCES: 'Ports below 1024 take a right that this user does not have: choose a higher one.',
  },
};
