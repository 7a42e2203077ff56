// Sockets that were made by the native addon, which hands them out as descriptor numbers.

import { Socket } from 'node:net';
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

/** A stream over a connected socket or pipe that then belongs to the stream. Errors end it: watch for `close`. */
export function streamOf(fd: number): Socket {
  const stream = new Socket({ fd, readable: true, writable: true, allowHalfOpen: false });
  // It reads from now on, and a peer may go before its owner listens.
  stream.on('error', () => {});
  return stream;
}
