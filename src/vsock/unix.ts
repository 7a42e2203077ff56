import type { Duplex } from 'node:stream';

/** Something that hands out connections which guests opened, one after another. */
export interface ConnectionListener {
  /** The next connection. It is paused until read. At most one is kept waiting: a newer one replaces it. */
  accept(signal: AbortSignal): Promise<Duplex>;
  /** Stops listening and closes a waiting connection; connections handed out stay open. */
  close(): Promise<void>;
}

/** Listens for the guest's connections to a host port (`<socket>_<port>`). */
export async function listenForGuest(_socket: string, _port: number): Promise<ConnectionListener> {
  throw new Error('Not written yet');
}

/** Connects to a port of the guest (`CONNECT <port>`, `OK <host port>`). */
export async function connectToGuest(
  _socket: string,
  _port: number,
  _options: { readonly timeoutMs?: number; readonly signal?: AbortSignal | undefined } = {},
): Promise<Duplex> {
  throw new Error('Not written yet');
}
