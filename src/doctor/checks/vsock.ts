// The kernel's own vsock: not needed by our machines, which have a device of their own, but by other monitors beside us.

import type { Context } from '../context.ts';
import { type Finding, found, together } from '../model.ts';

const DEVICE = '/dev/vhost-vsock';
/** The lowest context ID that a guest may have. */
const FIRST_CID = 3;

export function checkVsock({ host }: Context): Finding {
  const socket = host.tryInterface('af_vsock');
  const sockets =
    socket === undefined
      ? 'cannot be tried without the addon'
      : socket.ok
        ? 'available'
        : `not available (${socket.errno})`;
  return together(
    found('af-vsock', 'AF_VSOCK', 'info', sockets),
    found('vhost-vsock', 'vhost-vsock', 'info', deviceLine(host)),
  );
}

function deviceLine(host: Context['host']): string {
  if (!host.stat(DEVICE).ok) {
    const isLoaded = host.stat('/sys/module/vhost_vsock').ok;
    return isLoaded
      ? 'the module is loaded, but the device is not passed in here (not needed)'
      : 'the module vhost_vsock is not loaded (not needed)';
  }
  const opened = host.open(DEVICE);
  if (!opened.ok) return `${DEVICE} cannot be opened (${opened.errno})`;
  const taken = host.tryVsockCid(DEVICE, FIRST_CID);
  if (taken === undefined) return DEVICE;
  if (taken.ok) return `${DEVICE}, CID ${FIRST_CID} is free`;
  return taken.errno === 'EADDRINUSE'
    ? `${DEVICE}, CID ${FIRST_CID} is taken by another machine`
    : `${DEVICE} refuses CID ${FIRST_CID} (${taken.errno})`;
}
