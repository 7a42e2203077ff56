// Streams between programs of the host and of a guest, on ports that are not the package's own.

import type { Duplex } from 'node:stream';
import { checkConnectOptions, checkVsockPort } from '../config/port-options.ts';
import { MicroVMError, withDetails } from '../errors.ts';
import { waitAtMost } from '../host/wait-at-most.ts';
import type { Transport } from './transport.ts';
import { VsockServer } from './vsock-server.ts';

/** Connections that a guest may have open to the host's listeners at once. */
const MAX_CONNECTIONS = 1024;
/** Milliseconds that whoever reads a connection gets for its last bytes when the guest has ended. */
const LAST_BYTES_MS = 500;

/** How to connect to a guest. */
export interface VsockConnectOptions {
  /** Milliseconds to wait for the guest's answer. @default 10000 */
  readonly timeout?: number | undefined;
  /** Ends the attempt early. */
  readonly signal?: AbortSignal | undefined;
}

/** Vsock streams between this process and the guest. They are closed with the machine. */
export class GuestVsock {
  readonly #transport: Transport;
  readonly #reserved: readonly number[];
  readonly #servers = new Map<number, VsockServer>();
  readonly #open = new Set<Duplex>();
  readonly #ending = new AbortController();
  #arrived = 0;

  /** @internal `reserved` are the ports that are not for programs. */
  constructor(transport: Transport, reserved: readonly number[]) {
    this.#transport = transport;
    this.#reserved = [...new Set(reserved)];
  }

  /**
   * Connects to an AF_VSOCK listener of the guest. The stream is paused until it is read, and keeps its other half open
   * when the guest ends one.
   *
   * @throws {MicroVMError} `ERR_VSOCK_REFUSED` at once where nothing listens there; `ERR_CHANNEL_TIMEOUT`, `ERR_ABORTED`,
   *   `ERR_INVALID_OPTIONS`, `ERR_MACHINE_EXITED` and its kin
   */
  async connect(port: number, options: VsockConnectOptions = {}): Promise<Duplex> {
    checkVsockPort(port, this.#reserved);
    checkConnectOptions(options);
    const { timeout, signal } = options;
    const ending = this.#ending.signal;
    if (ending.aborted) throw ending.reason;
    const either = signal ? AbortSignal.any([signal, ending]) : ending;
    try {
      return this.#keep(await this.#transport.dial(port, { timeoutMs: timeout, signal: either }));
    } catch (error) {
      throw ending.aborted ? ending.reason : error;
    }
  }

  /**
   * Listens for the guest's connections to a port of the host (CID 2), of this guest alone. The guest is refused where
   * nobody listens.
   *
   * @throws {MicroVMError} `ERR_VSOCK_PORT_TAKEN`, `ERR_INVALID_OPTIONS`, `ERR_SOCKET_FAILED`, `ERR_MACHINE_EXITED` and
   *   its kin
   */
  async listen(port: number): Promise<VsockServer> {
    checkVsockPort(port, this.#reserved);
    const ending = this.#ending.signal;
    if (ending.aborted) throw ending.reason;
    if (this.#servers.has(port)) throw portTaken(new MicroVMError('ERR_VSOCK_PORT_TAKEN', listensAlready(port)));
    let stop = (): void => {};
    const server = new VsockServer(port, () => {
      this.#servers.delete(port);
      stop();
    });
    this.#servers.set(port, server);
    try {
      stop = await this.#transport.serve(port, (connection) => this.#arrive(server, connection));
    } catch (error) {
      await server.close();
      throw portTaken(error);
    }
    // The machine may have ended meanwhile.
    if (!server.listening) stop();
    if (ending.aborted) throw ending.reason;
    return server;
  }

  /**
   * @internal Ends everything, with the machine. Who reads a connection gets what the guest had sent.
   */
  async close(reason: MicroVMError): Promise<void> {
    this.#ending.abort(reason);
    await Promise.all([...this.#servers.values()].map((server) => server.close()));
    const read = [...this.#open].filter(isRead);
    for (const connection of this.#open) connection.end();
    const closed = read.map((connection) => new Promise<void>((resolve) => connection.once('close', resolve)));
    if (read.length > 0) await waitAtMost(Promise.all(closed), LAST_BYTES_MS);
    for (const connection of this.#open) connection.destroy();
  }

  #arrive(server: VsockServer, connection: Duplex): void {
    if (this.#arrived >= MAX_CONNECTIONS) return void connection.destroy();
    this.#arrived += 1;
    connection.once('close', () => (this.#arrived -= 1));
    server.offer(this.#keep(connection));
  }

  #keep(connection: Duplex): Duplex {
    this.#open.add(connection);
    connection.once('close', () => this.#open.delete(connection));
    // Not read before somebody asks, and then as any stream is: one that was paused would not start by a listener for data.
    (connection as { readableFlowing: boolean | null }).readableFlowing = null;
    // A guest that resets its connections must not end this process.
    connection.on('error', () => {});
    return connection;
  }
}

function isRead(connection: Duplex): boolean {
  return connection.readableFlowing === true || connection.listenerCount('readable') > 0;
}

function listensAlready(port: number): string {
  return `This machine listens at vsock port ${port} already`;
}

/** The transport's own hint is about the agent's port. */
function portTaken(error: unknown): unknown {
  if (!(error instanceof MicroVMError) || error.code !== 'ERR_VSOCK_PORT_TAKEN') return error;
  return withDetails(error, { hint: 'Choose another port, or close what listens there.' });
}
