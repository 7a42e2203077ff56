// Connections that a guest opened, on their way to whoever accepts them.

import type { Duplex } from 'node:stream';

/** Something that hands out connections which guests opened, one after another. */
export interface ConnectionListener {
  /** The next connection. It is paused until read. Rejects with the signal's reason. One call at a time. */
  accept(signal: AbortSignal): Promise<Duplex>;
  /** Stops listening and closes a waiting connection; connections handed out stay open. */
  close(): Promise<void>;
}

/**
 * A backlog of one: one connection may wait, and a newer one takes its place, because an agent dials again only after it has given
 * up its last connection.
 */
export class GuestConnections implements ConnectionListener {
  readonly #stopListening: () => void;
  #waiting: Duplex | undefined;
  #taker: ((connection: Duplex) => void) | undefined;

  constructor(stopListening: () => void) {
    this.#stopListening = stopListening;
  }

  /** Takes in a connection that has come. */
  offer(connection: Duplex): void {
    if (this.#taker) return this.#taker(connection);
    this.#waiting?.destroy();
    this.#waiting = connection;
    // Without a listener, a reset while it waits would end the process.
    connection.on('error', () => {});
  }

  accept(signal: AbortSignal): Promise<Duplex> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      if (this.#waiting) {
        resolve(this.#waiting);
        this.#waiting = undefined;
        return;
      }
      const abort = (): void => {
        this.#taker = undefined;
        reject(signal.reason);
      };
      signal.addEventListener('abort', abort, { once: true });
      this.#taker = (connection) => {
        this.#taker = undefined;
        signal.removeEventListener('abort', abort);
        resolve(connection);
      };
    });
  }

  close(): Promise<void> {
    this.#waiting?.destroy();
    this.#waiting = undefined;
    this.#stopListening();
    return Promise.resolve();
  }
}
