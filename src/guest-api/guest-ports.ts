// All forwarded ports of a machine.

import type { ForwardSpec, ReverseSpec } from '../config/machine-spec.ts';
import type { MicroVMError } from '../errors.ts';
import { deferred } from '../host/deferred.ts';
import type { AgentApi } from './agent-api.ts';
import { GuestListener } from './guest-listener.ts';
import { HostListener } from './host-listener.ts';
import type { PortForward, PortHost } from './port-forward.ts';

/** Connections of all forwards together: each costs the guest, and this host, a descriptor and buffers. */
const MAX_CONNECTIONS = 512;

/** What listens for a machine. It may be told to listen before there is an agent: connections wait for it then. */
export class GuestPorts implements PortHost {
  readonly #api = deferred<AgentApi>();
  readonly #ending = new AbortController();
  readonly #forwards = new Set<HostListener | GuestListener>();
  readonly #waiting: (() => void)[] = [];
  #connections = 0;
  #agent: AgentApi | undefined;

  get api(): Promise<AgentApi> {
    return this.#api.promise;
  }

  /** The agent is up; `api` is the forwards' own connection to it, so that they hold up nothing else. */
  attach(api: AgentApi): void {
    this.#agent = api;
    this.#api.resolve(api);
  }

  async forward(spec: ForwardSpec): Promise<PortForward> {
    return this.#keep(HostListener.open(this, spec));
  }

  async reverse(spec: ReverseSpec): Promise<PortForward> {
    return this.#keep(GuestListener.open(this, spec));
  }

  list(): readonly PortForward[] {
    return [...this.#forwards];
  }

  async close(reason: MicroVMError): Promise<void> {
    this.#ending.abort(reason);
    this.#api.reject(reason);
    this.#agent?.close(reason);
    for (const resolve of this.#waiting.splice(0)) resolve();
    await Promise.all([...this.#forwards].map((forward) => forward.close()));
  }

  closeSync(): void {
    for (const forward of this.#forwards) if (forward instanceof HostListener) forward.closeSync();
  }

  enter(): boolean {
    if (this.#connections >= MAX_CONNECTIONS) return false;
    this.#connections += 1;
    return true;
  }

  leave(): void {
    this.#connections -= 1;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  async room(): Promise<void> {
    while (this.#connections >= MAX_CONNECTIONS && !this.#ending.signal.aborted) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** Why the machine has ended; undefined where it has not. */
  get #gone(): MicroVMError | undefined {
    const { aborted, reason } = this.#ending.signal;
    return aborted ? (reason as MicroVMError) : undefined;
  }

  async #keep(opening: Promise<HostListener | GuestListener>): Promise<PortForward> {
    let forward: HostListener | GuestListener;
    try {
      if (this.#gone) throw this.#gone;
      forward = await opening;
    } catch (error) {
      // It may be there all the same.
      void opening.then(
        (late) => late.close(),
        () => {},
      );
      throw this.#gone ?? error;
    }
    this.#forwards.add(forward);
    void forward.closed.then(() => this.#forwards.delete(forward));
    if (this.#gone) {
      await forward.close();
      throw this.#gone;
    }
    return forward;
  }
}
