// What a forwarded port is to its owner, and what all of a machine's have in common.

import type { AgentApi } from './agent-api.ts';

/** Where a forwarded port listens. */
export interface PortAddress {
  /** The IP address, or the path of a Unix socket. */
  readonly address: string;
  /** The TCP port; undefined for a Unix socket. */
  readonly port: number | undefined;
}

/** A port that is forwarded until it is closed, at the latest with its machine. */
export interface PortForward extends AsyncDisposable {
  /** Where it listens: on this host for a port of the guest, in the guest for a service of this host. */
  address(): PortAddress;
  /** Resolves when it is closed, by whomever. Never rejects. */
  readonly closed: Promise<void>;
  /** Stops listening and breaks off its connections. Calling it again does nothing. */
  close(): Promise<void>;
}

/** What a forward may use of its machine. */
export interface PortHost {
  /** The agent, once it is up; rejects where the machine ends first. */
  readonly api: Promise<AgentApi>;
  /** Takes one of the places for connections that all forwards of a machine share; false where none is free. */
  enter(): boolean;
  /** Gives it back. */
  leave(): void;
  /** Resolves when a place may be free. */
  room(): Promise<void>;
}
