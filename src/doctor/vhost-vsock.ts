// The problem with the host's vhost-vsock device: only for machines with vsock: 'vhost', which few are.

import { containerOf } from './container.ts';
import type { Host } from './host.ts';
import { asRoot, type Fix, fix, type Problem } from './model.ts';
import { installCommands } from './packages.ts';

export const VHOST_VSOCK = '/dev/vhost-vsock';
/** There whenever the kernel has the module, whatever this /dev holds. */
const MODULE_LOADED = '/sys/module/vhost_vsock';
/** What everybody can do. */
const OTHERWISE = fix("leave out vsock: the device of this package, 'unix', needs nothing from the host");

/** What keeps this user from the device; undefined where it can be opened. */
export function vhostVsockProblem(host: Host): Problem | undefined {
  if (!host.stat(VHOST_VSOCK).ok) return missing(host);
  const opened = host.open(VHOST_VSOCK);
  return opened.ok ? undefined : closed(host, opened.errno);
}

function missing(host: Host): Problem {
  const container = containerOf(host);
  const isLoaded = host.stat(MODULE_LOADED).ok;
  const [cause, first] =
    container !== undefined
      ? [`this runs in a container (${container.name}), which does not have the device`, passIn()]
      : isLoaded
        ? ['the module vhost_vsock is loaded, but /dev here lacks the device: a sandbox, a chroot, a service', passIn()]
        : [
            'the kernel module vhost_vsock is not loaded',
            fix('load the vhost_vsock kernel module', asRoot('modprobe', 'vhost_vsock')),
          ];
  return {
    id: 'vhost-vsock-missing',
    check: 'vhost-vsock',
    title: `${VHOST_VSOCK} is not present`,
    causes: [cause],
    fixes: [first, OTHERWISE],
  };
}

function closed(host: Host, errno: string): Problem {
  const who = host.account(host.identity.uid)?.name ?? String(host.identity.uid);
  const problem = { check: 'vhost-vsock', title: `${VHOST_VSOCK} is not accessible by ${who}` };
  const installSetfacl = host.program('setfacl') === undefined ? installCommands(host, 'acl') : [];
  switch (errno) {
    case 'EACCES':
      return {
        ...problem,
        id: 'vhost-vsock-permission',
        causes: [`${VHOST_VSOCK} may not be opened by ${who}`],
        // Until the device is made anew, which its module does; a rule of udev would last.
        fixes: [
          fix(`let ${who} open it`, ...installSetfacl, asRoot('setfacl', '-m', `u:${who}:rw`, VHOST_VSOCK)),
          OTHERWISE,
        ],
      };
    case 'EPERM':
      return {
        ...problem,
        id: 'vhost-vsock-forbidden',
        causes: ['the device cgroup of this process does not allow it'],
        fixes: [passIn(), OTHERWISE],
      };
    default:
      return {
        ...problem,
        id: 'vhost-vsock-unavailable',
        causes: [`opening ${VHOST_VSOCK} failed with ${errno}`],
        fixes: [OTHERWISE],
      };
  }
}

function passIn(): Fix {
  return fix(`let whoever starts this container or service pass in the device (docker run --device ${VHOST_VSOCK} …)`);
}
