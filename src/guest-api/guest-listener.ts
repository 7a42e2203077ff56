// A service of this host at a port of the guest: the agent listens there, and connections go on to that service alone.

import type { ClientHttp2Stream } from 'node:http2';
import type { ReverseSpec } from '../config/machine-spec.ts';
import { MicroVMError } from '../errors.ts';
import { deferred } from '../host/deferred.ts';
import { checkSocketPath } from '../host/socket-path.ts';
import { type AgentApi, destroy, wholeNumber } from './agent-api.ts';
import { placeOf } from './host-listener.ts';
import type { PortAddress, PortForward, PortHost } from './port-forward.ts';
import { AgentRefusal } from './refusal.ts';
import { breakOff, connectToHost, join } from './tunnel.ts';

const LOOPBACK = '127.0.0.1';

/**
 * Has the agent listen, and asks it for one connection after another. The guest chooses nothing: every connection goes to
 * the service that was named when this was made.
 */
export class GuestListener implements PortForward {
  readonly #host: PortHost;
  readonly #api: AgentApi;
  readonly #service: ReverseSpec['host'];
  readonly #address: PortAddress;
  /** The request that keeps the agent listening. */
  readonly #listening: ClientHttp2Stream;
  readonly #id: number;
  readonly #open = new Set<ClientHttp2Stream>();
  readonly #closing = new AbortController();
  readonly #closed = deferred<void>();

  private constructor(
    host: PortHost,
    api: AgentApi,
    { guest, host: service }: ReverseSpec,
    stream: ClientHttp2Stream,
    headers: Record<string, unknown>,
  ) {
    this.#host = host;
    this.#api = api;
    this.#service = service;
    this.#listening = stream;
    this.#id = wholeNumber(headers['listener'], Number.MAX_SAFE_INTEGER);
    this.#address =
      typeof guest === 'string'
        ? { address: guest, port: undefined }
        : { address: LOOPBACK, port: wholeNumber(headers['port'], 65_535) };
    // It has no body: what comes all the same is dropped.
    stream.resume();
    stream.once('close', () => void this.close());
    void this.#accept();
  }

  /**
   * Resolves when the guest listens. Throws `ERR_PORT_TAKEN`, `ERR_AGENT_REFUSED`, `ERR_SOCKET_PATH_TOO_LONG` and what a
   * request throws.
   */
  static async open(host: PortHost, spec: ReverseSpec): Promise<GuestListener> {
    if ('path' in spec.host) checkSocketPath(spec.host.path, 'caller');
    const api = await host.api;
    const stream = await api.open('POST', `/v1/listen?${placeOf(spec.guest)}`);
    try {
      stream.end();
      const { headers } = await api.answerTo(stream);
      return new GuestListener(host, api, spec, stream, headers);
    } catch (error) {
      destroy(stream);
      throw notListening(error, spec.guest);
    }
  }

  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  address(): PortAddress {
    return this.#address;
  }

  async close(): Promise<void> {
    if (!this.#closing.signal.aborted) {
      this.#closing.abort(new Error('The port is not forwarded any more'));
      destroy(this.#listening);
      for (const stream of this.#open) breakOff(stream);
      this.#closed.resolve();
    }
    return this.#closed.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** One request at a time waits for a connection; others wait in the guest's kernel meanwhile. */
  async #accept(): Promise<void> {
    const { signal } = this.#closing;
    try {
      while (!signal.aborted) {
        await this.#host.room();
        const stream = await this.#api.open('POST', `/v1/listeners/${this.#id}/accept`);
        this.#open.add(stream);
        stream.once('close', () => this.#open.delete(stream));
        if (signal.aborted) return destroy(stream);
        await this.#api.answerTo(stream, Number.POSITIVE_INFINITY);
        void this.#serve(stream);
      }
    } catch {
      // An agent that does not accept any more serves nobody: whoever waits for the end hears of it.
      await this.close();
    }
  }

  async #serve(stream: ClientHttp2Stream): Promise<void> {
    if (!this.#host.enter()) return breakOff(stream);
    try {
      await join(await connectToHost(this.#service, this.#closing.signal), stream);
    } catch {
      // Nobody serves it here: the guest sees its connection reset.
      breakOff(stream);
    } finally {
      this.#host.leave();
    }
  }
}

function notListening(error: unknown, guest: ReverseSpec['guest']): unknown {
  if (!(error instanceof AgentRefusal)) return error;
  const where = typeof guest === 'number' ? `port ${guest}` : guest;
  if (error.code === 'EADDRINUSE') {
    return new MicroVMError('ERR_PORT_TAKEN', `Something else listens at ${where} of the guest`, {
      cause: error,
      hint: 'Choose another one; port 0 is a free one.',
    });
  }
  return new MicroVMError(
    'ERR_AGENT_REFUSED',
    `The guest cannot listen at ${where}: ${error.message} (${error.code})`,
    {
      cause: error,
    },
  );
}
