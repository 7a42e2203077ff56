// How a connection to a guest fails, whatever carries it.

import { MicroVMError } from '../errors.ts';

export interface ConnectOptions {
  /** Milliseconds to wait for the guest's answer. @default 10000 */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export const CONNECT_TIMEOUT_MS = 10_000;

export function refused(port: number, cause?: unknown): MicroVMError {
  return new MicroVMError('ERR_VSOCK_REFUSED', `The guest refused the connection to port ${port}`, {
    ...(cause !== undefined && { cause }),
    hint: 'Check that a program in the guest listens on that vsock port.',
  });
}

export function unanswered(port: number, timeoutMs: number): MicroVMError {
  return new MicroVMError('ERR_CHANNEL_TIMEOUT', `The guest did not answer on port ${port} within ${timeoutMs} ms`);
}

export function aborted(port: number, signal: AbortSignal | undefined): MicroVMError {
  return new MicroVMError('ERR_ABORTED', `The connection to port ${port} was aborted`, { cause: signal?.reason });
}
