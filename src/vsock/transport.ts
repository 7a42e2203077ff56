// The way between host and guest: streams to ports of the guest. What carries them (Unix sockets of a device in user space, or
// the host's own AF_VSOCK) is below this interface, and nothing above it can tell.

import type { Duplex } from 'node:stream';
import { type ConnectOptions, connectToGuest } from './unix.ts';

export interface Transport {
  /** Connects to a port of the guest; rejects with `ERR_VSOCK_REFUSED` where nothing listens there. */
  dial(port: number, options?: ConnectOptions): Promise<Duplex>;
}

/** A vsock device by the hybrid convention, whose host end is this Unix socket. */
export function unixTransport(socket: string): Transport {
  return {
    dial: (port, options) => connectToGuest(socket, port, options),
  };
}
