// Sockets that were made by the native addon, which hands them out as descriptor numbers.

import { Socket } from 'node:net';
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
  const [near, far] = loadBinding().socketPair();
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

/** A stream over a connected socket or pipe that then belongs to the stream. */
export function streamOf(fd: number): Socket {
  return new Socket({ fd, readable: true, writable: true, allowHalfOpen: false });
}
