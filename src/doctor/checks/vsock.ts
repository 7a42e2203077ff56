// The kernel's own vsock: for machines with vsock: 'vhost', and for other monitors beside us. All others have a device of ours, so
// nothing here is a problem by itself; failing starts tell what is (../vhost-vsock.ts).

import type { Context } from '../context.ts';
import { type Finding, found, together } from '../model.ts';
import { VHOST_VSOCK as DEVICE } from '../vhost-vsock.ts';

/** Who can do without. */
const FOR_WHOM = "needed for vsock: 'vhost' alone";
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
      ? `the module is loaded, but the device is not passed in here (${FOR_WHOM})`
      : `the module vhost_vsock is not loaded (${FOR_WHOM})`;
  }
  const opened = host.open(DEVICE);
  if (!opened.ok) return `${DEVICE} cannot be opened (${opened.errno}; ${FOR_WHOM})`;
  const taken = host.tryVsockCid(DEVICE, FIRST_CID);
  if (taken === undefined) return DEVICE;
  if (taken.ok) return `${DEVICE}, CID ${FIRST_CID} is free`;
  return taken.errno === 'EADDRINUSE'
    ? `${DEVICE}, CID ${FIRST_CID} is taken by another machine`
    : `${DEVICE} refuses CID ${FIRST_CID} (${taken.errno})`;
}
