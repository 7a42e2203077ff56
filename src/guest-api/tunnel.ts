// A connection of this host joined to a request of the agent API, whose bodies are a connection in the guest.

import type { ClientHttp2Stream } from 'node:http2';
import { connect, type Socket } from 'node:net';
import type { HostAddress } from '../config/machine-spec.ts';

/**
 * Joins them: bytes, ends and back-pressure go both ways, and what breaks on one side breaks the other. Resolves when both
 * are closed.
 */
export function join(socket: Socket, stream: ClientHttp2Stream): Promise<void> {
  const closed = Promise.all([whenClosed(socket), whenClosed(stream)]);
  socket.on('error', () => {});
  socket.once('close', () => {
    // After both ends the request is over by itself.
    if (!(socket.readableEnded && stream.readableEnded)) breakOff(stream);
  });
  const endOfGuest = (): void => {
    // A request that was reset ends too.
    if (stream.rstCode !== 0) reset(socket);
    else socket.end();
  };
  // One that has said nothing may have ended before it was read.
  if (stream.readableEnded) endOfGuest();
  else stream.once('end', endOfGuest);
  stream.once('close', () => {
    if (stream.rstCode !== 0 || !stream.readableEnded) reset(socket);
    // The guest has closed its connection without reading it to the end: what it said is still the caller's.
    else if (stream.aborted || !stream.writableFinished) socket.destroySoon();
  });
  if (socket.destroyed) breakOff(stream);
  else if (stream.destroyed) reset(socket);
  else socket.pipe(stream).pipe(socket, { end: false });
  return closed.then(() => {});
}

/** Breaks a request off, so that the agent resets its connection. `close` would end its body first, and cancel it then. */
export function breakOff(stream: ClientHttp2Stream): void {
  stream.destroy(new Error('The connection was broken off'));
}

/** Breaks a connection off, so that its peer sees it: by a reset where it is a TCP one. */
export function reset(socket: Socket): void {
  if (socket.destroyed) return;
  // Other sockets than those of TCP know no reset.
  if (socket.remoteFamily !== undefined) socket.resetAndDestroy();
  // By itself that waits until a peer that may never read has taken what was written.
  socket.destroy();
}

/** Connects to a service of this host; rejects with the system's error, or when `signal` is aborted. */
export function connectToHost(address: HostAddress, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const target = 'path' in address ? { path: address.path } : { host: address.address, port: address.port };
    const socket = connect({ ...target, allowHalfOpen: true, noDelay: true });
    const onAbort = (): void => {
      socket.destroy();
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    socket.once('error', reject);
    socket.once('connect', () => {
      signal.removeEventListener('abort', onAbort);
      socket.off('error', reject);
      socket.on('error', () => {});
      resolve(socket);
    });
    socket.once('close', () => signal.removeEventListener('abort', onAbort));
    if (signal.aborted) onAbort();
  });
}

function whenClosed(stream: Socket | ClientHttp2Stream): Promise<void> {
  if (stream.closed) return Promise.resolve();
  return new Promise((resolve) => stream.once('close', () => resolve()));
}
