// The way between host and guest: streams to ports of either. What carries them (Unix sockets of a device in user space, or
// the host's own AF_VSOCK) is below this interface, and nothing above it can tell.

import type { Duplex } from 'node:stream';
import type { ConnectOptions } from './connect-errors.ts';
import type { ConnectionListener } from './guest-connections.ts';
import { connectToGuest, listenForGuest, serveGuest } from './unix.ts';

export interface Transport {
  /** Connects to a port of the guest; rejects with `ERR_VSOCK_REFUSED` where nothing listens there. */
  dial(port: number, options?: ConnectOptions): Promise<Duplex>;
  /** Listens for the guest's connections to a port of the host. */
  listen(port: number): Promise<ConnectionListener>;
  /** The same for many at once: each is handed to `take`, paused. Gives what stops it. */
  serve(port: number, take: (connection: Duplex) => void): Promise<() => void>;
}

/** How many connections may wait until this process comes to them, where all of them count. */
export const WAITING_CONNECTIONS = 128;

/** A vsock device by the hybrid convention, whose host end is this Unix socket. */
export function unixTransport(socket: string): Transport {
  return {
    dial: (port, options) => connectToGuest(socket, port, options),
    listen: (port) => listenForGuest(socket, port),
    serve: (port, take) => serveGuest(socket, port, WAITING_CONNECTIONS, take),
  };
}
