// A guest's context ID on the host's own vsock, by the addon.

import { Socket } from 'node:net';
import type { BindingVhostVsock } from '../binding.ts';
import { type MicroVMError, withDetails } from '../errors.ts';
import { fromNative } from '../native-error.ts';
import { loadBinding } from '../native.ts';
import { streamOf } from './descriptor.ts';

/**
 * A context ID that no other guest of this host has, until it is closed here and by whoever runs the guest.
 * Everything throws or rejects with a `MicroVMError`.
 */
export class VhostVsock {
  readonly #native: BindingVhostVsock;

  /**
   * Opens the device and takes a context ID: a free one where none is given.
   *
   * @throws {MicroVMError} `ERR_VHOST_VSOCK_MISSING`, `ERR_VHOST_VSOCK_PERMISSION`, `ERR_VHOST_VSOCK_FAILED`,
   *   `ERR_VSOCK_CID_TAKEN`
   */
  constructor(device: string, cid?: number) {
    this.#native = typed(() => loadBinding().takeVhostVsock(device, cid));
  }

  get cid(): number {
    return this.#native.cid;
  }

  /** The open device, to be copied; it is this object's. */
  get deviceFd(): number {
    return typed(() => this.#native.device());
  }

  /** Closes the device here, once whoever runs the guest has a copy. */
  releaseDevice(): void {
    this.#native.releaseDevice();
  }

  /**
   * Listens at a port of the host; gives a stream of one byte for each arrival, which may be less where many come. At most
   * `waiting` connections wait and more are closed; in a single place the newest waits.
   */
  listen(port: number, waiting: number): Socket {
    return streamOf(typed(() => this.#native.listen(port, waiting)));
  }

  /** A connection that has come to that port. */
  take(port: number): Socket | undefined {
    const fd = this.#native.takeConnection(port);
    return fd === null ? undefined : connectionOf(fd);
  }

  stopListening(port: number): void {
    this.#native.stopListening(port);
  }

  /** Connects to a port of the guest, until `signal` is aborted: then it rejects, and holds nothing any more. */
  async connect(port: number, timeoutMs: number, signal?: AbortSignal): Promise<Socket> {
    let cancel = (): void => {};
    try {
      const attempt = this.#native.dial(port, timeoutMs);
      cancel = () => attempt.cancel();
      signal?.addEventListener('abort', cancel, { once: true });
      return connectionOf(await attempt.socket());
    } catch (error) {
      throw fromNative(error);
    } finally {
      signal?.removeEventListener('abort', cancel);
    }
  }

  /** Ends all connections and listeners. Calling it again does nothing. */
  close(): void {
    this.#native.close();
  }
}

/** A stream that keeps its other half open when one ends, and flows when it is read. */
function connectionOf(fd: number): Socket {
  return new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
}

/** What can be done about failures that are of the caller's numbers. */
const HINTS: Readonly<Record<string, string>> = {
  ERR_VSOCK_CID_TAKEN: 'Leave out cid, and a free one is taken.',
  ERR_VSOCK_PORT_TAKEN:
    "Another program listens there, such as another process with machines on the host's vsock: give this one a port of its own by vsock: { type: 'vhost', port }.",
};

function inOurWords(error: unknown): MicroVMError {
  const typedError = fromNative(error);
  const hint = HINTS[typedError.code];
  return hint === undefined ? typedError : withDetails(typedError, { hint });
}

function typed<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw inOurWords(error);
  }
}
