// Sockets that were made by the native addon, which hands them out as descriptor numbers.

import cluster from 'node:cluster';
import { Socket } from 'node:net';
import { getSystemErrorName } from 'node:util';
import type { BindingError } from '../binding.ts';
import { fromNative } from '../native-error.ts';
import { loadBinding } from '../native.ts';

/** One end as a stream, the other as a number that is to be passed on and then closed with `release`. */
export interface SplitPair {
  readonly stream: Socket;
  readonly fd: number;
  /** Closes `fd` here; calling it again does nothing. */
  release(): void;
}

/** Two connected sockets. */
export function splitSocketPair(): SplitPair {
  const [near, far] = socketPair();
  let open = true;
  return {
    stream: streamOf(near),
    fd: far,
    release() {
      if (!open) return;
      open = false;
      loadBinding().closeDescriptor(far);
    },
  };
}

function socketPair(): [number, number] {
  try {
    return loadBinding().socketPair();
  } catch (error) {
    throw fromNative(error);
  }
}

/**
 * A socket that listens at `path` and is its owner's alone from the first moment on, for `server.listen({ fd })`. The file
 * stays when the server is closed.
 *
 * @throws an error with a `code` as Node's own, such as `EADDRINUSE`
 */
export function privateListener(path: string): number {
  // In a worker of `node:cluster` it is the primary process that listens, where the number means something else.
  if (cluster.isWorker) throw systemError('ENOTSUP', 'Workers of node:cluster cannot listen at a private Unix socket');
  try {
    return loadBinding().listenPrivately(path);
  } catch (error) {
    const { errno, message } = error as BindingError;
    throw errno === undefined ? fromNative(error) : systemError(getSystemErrorName(-errno), message);
  }
}

function systemError(code: string, message: string): NodeJS.ErrnoException {
  return Object.assign(new Error(message), { code, syscall: 'listen' });
}

/** A stream over a connected socket or pipe that then belongs to the stream. Errors end it: watch for `close`. */
export function streamOf(fd: number): Socket {
  const stream = new Socket({ fd, readable: true, writable: true, allowHalfOpen: false });
  // It reads from now on, and a peer may go before its owner listens.
  stream.on('error', () => {});
  return stream;
}
