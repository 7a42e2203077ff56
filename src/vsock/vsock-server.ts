// Connections that a guest opens to a port of the host, for the program that owns the machine.

import { EventEmitter } from 'node:events';
import type { Duplex } from 'node:stream';
import { WAITING_CONNECTIONS } from './transport.ts';

/**
 * Listens at a vsock port for one guest. Each connection is an event `connection`, or the next of an iteration; one that
 * nobody takes waits, and of more than 128 of them the newest are closed.
 *
 * A stream is paused until it is read. It keeps its other half open when the guest ends one; one that breaks closes, and
 * need not be listened to for errors.
 */
export class VsockServer
  extends EventEmitter<{ connection: [Duplex]; close: [] }>
  implements AsyncDisposable, AsyncIterable<Duplex>
{
  /** The port of the host. */
  readonly port: number;
  readonly #stop: () => void;
  readonly #waiting: Duplex[] = [];
  readonly #takers: ((connection: Duplex | undefined) => void)[] = [];
  #isOpen = true;

  /** @internal */
  constructor(port: number, stop: () => void) {
    super();
    this.port = port;
    this.#stop = stop;
    (this as EventEmitter).on('newListener', (event: string | symbol) => {
      // Those that came before anybody listened.
      if (event === 'connection') queueMicrotask(() => this.#offerAgain());
    });
  }

  /** Whether it listens. */
  get listening(): boolean {
    return this.#isOpen;
  }

  /** @internal Takes in a connection that has come. */
  offer(connection: Duplex): void {
    if (connection.destroyed) return;
    const taker = this.#takers.shift();
    if (taker) return taker(connection);
    if (this.#isOpen && this.listenerCount('connection') > 0) return void this.emit('connection', connection);
    if (this.#isOpen && this.#waiting.length < WAITING_CONNECTIONS) this.#waiting.push(connection);
    else connection.destroy();
  }

  /** Stops listening, closes connections that wait and ends iterations. Those that were taken stay open. */
  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#stop();
    for (const connection of this.#waiting.splice(0)) connection.destroy();
    for (const taker of this.#takers.splice(0)) taker(undefined);
    this.emit('close');
  }

  /** The same as {@link close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** The connections as they come, until it is closed. Leaving the iteration closes nothing. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Duplex, void, undefined> {
    for (let next = await this.#next(); next; next = await this.#next()) yield next;
  }

  #offerAgain(): void {
    for (const connection of this.#waiting.splice(0)) this.offer(connection);
  }

  #next(): Promise<Duplex | undefined> {
    for (let one = this.#waiting.shift(); one; one = this.#waiting.shift()) {
      if (!one.destroyed) return Promise.resolve(one);
    }
    if (!this.#isOpen) return Promise.resolve(undefined);
    return new Promise((resolve) => this.#takers.push(resolve));
  }
}
