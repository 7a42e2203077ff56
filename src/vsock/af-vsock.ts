// The host's own vsock: the guest's device is the kernel's, and its connections arrive at AF_VSOCK sockets of this host. The addon
// joins them to Unix sockets, which Node can read.

import type { Duplex } from 'node:stream';
import { MicroVMError } from '../errors.ts';
import type { VhostVsock } from '../host/vhost-vsock.ts';
import { CONNECT_TIMEOUT_MS, type ConnectOptions, aborted, refused, unanswered } from './connect-errors.ts';
import { type ConnectionListener, GuestConnections } from './guest-connections.ts';
import { type Transport, WAITING_CONNECTIONS } from './transport.ts';

/** How many connections may wait until Node comes to take them: all but the newest are dropped then. */
const ARRIVING = 1;

/** The ways to and from the guest that has this context ID. */
export function afVsockTransport(vsock: VhostVsock): Transport {
  return {
    dial: (port, options) => dial(vsock, port, options),
    listen: async (port) => listen(vsock, port),
    serve: async (port, take) => serve(vsock, port, WAITING_CONNECTIONS, take),
  };
}

function listen(vsock: VhostVsock, port: number): ConnectionListener {
  let stop = (): void => {};
  const connections = new GuestConnections(() => stop());
  stop = serve(vsock, port, ARRIVING, (connection) => connections.offer(connection));
  return connections;
}

function serve(vsock: VhostVsock, port: number, waiting: number, take: (connection: Duplex) => void): () => void {
  const arrivals = vsock.listen(port, waiting);
  arrivals.on('data', () => {
    for (let connection = vsock.take(port); connection; connection = vsock.take(port)) take(connection);
  });
  return () => {
    arrivals.destroy();
    vsock.stopListening(port);
  };
}

function dial(vsock: VhostVsock, port: number, options: ConnectOptions = {}): Promise<Duplex> {
  const { timeoutMs = CONNECT_TIMEOUT_MS, signal } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(aborted(port, signal));
    let isAborted = false;
    const onAbort = (): void => {
      isAborted = true;
      reject(aborted(port, signal));
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    vsock.connect(port, timeoutMs, signal).then(
      (connection) => {
        signal?.removeEventListener('abort', onAbort);
        // It came when nobody waited any more.
        if (isAborted) connection.destroy();
        else resolve(connection);
      },
      (error: unknown) => {
        signal?.removeEventListener('abort', onAbort);
        reject(inOurWords(error, port, timeoutMs));
      },
    );
  });
}

/** The errors that the other transport has too are the same here. */
function inOurWords(error: unknown, port: number, timeoutMs: number): unknown {
  if (!(error instanceof MicroVMError)) return error;
  if (error.code === 'ERR_VSOCK_REFUSED') return refused(port, error.cause);
  if (error.code === 'ERR_CHANNEL_TIMEOUT') return unanswered(port, timeoutMs);
  return error;
}
