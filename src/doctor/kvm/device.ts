// The state of the KVM device: what the file system and an attempt to open it say.

import type { FileFacts, Host } from '../host.ts';

/** What became of the attempt to use a KVM device. */
export type DeviceState =
  | { readonly state: 'usable'; readonly facts: FileFacts }
  | { readonly state: 'missing' }
  /** Something on the way to it may not be searched, so nobody knows whether it is there. */
  | { readonly state: 'hidden'; readonly errno: string }
  | { readonly state: 'not-a-device'; readonly kind: FileFacts['kind'] }
  /** EACCES: permissions, a mount option or a security module. */
  | { readonly state: 'refused'; readonly facts: FileFacts }
  /** EPERM: the device cgroup. */
  | { readonly state: 'forbidden' }
  /** Anything else. */
  | { readonly state: 'unavailable'; readonly errno: string };

/** Looks at a KVM device and opens it, which is what tells; takes microseconds. */
export function examineDevice(host: Host, device: string): DeviceState {
  const facts = host.stat(device);
  if (!facts.ok) {
    const isMissing = facts.errno === 'ENOENT' || facts.errno === 'ENOTDIR';
    return isMissing ? { state: 'missing' } : { state: 'hidden', errno: facts.errno };
  }
  // A file of another kind is not opened: that may do harm, or block.
  if (facts.value.kind !== 'character device') return { state: 'not-a-device', kind: facts.value.kind };
  const opened = host.open(device);
  if (opened.ok) return { state: 'usable', facts: facts.value };
  switch (opened.errno) {
    case 'EACCES':
      return { state: 'refused', facts: facts.value };
    case 'EPERM':
      return { state: 'forbidden' };
    default:
      return { state: 'unavailable', errno: opened.errno };
  }
}
