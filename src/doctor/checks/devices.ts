// Devices that networks and file systems of machines are made with.

import type { Context } from '../context.ts';
import { type Finding, found, together } from '../model.ts';

export function checkDevices({ host }: Context): Finding {
  return together(device(host, 'tun', 'TUN/TAP', '/dev/net/tun'), device(host, 'fuse', 'FUSE', '/dev/fuse'));
}

function device(host: Context['host'], id: string, label: string, path: string): Finding {
  const facts = host.stat(path);
  if (!facts.ok) return found(id, label, 'info', facts.errno === 'ENOENT' ? `no ${path}` : `${path}: ${facts.errno}`);
  const opened = host.open(path);
  return found(id, label, 'info', opened.ok ? path : `${path} cannot be opened (${opened.errno})`);
}
