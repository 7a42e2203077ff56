// Who may do what with a file: the kernel's rules for permission bits and POSIX access control lists (acl(5)).

import type { AclEntry, FileFacts, Identity } from './host.ts';

/** Read and write. */
export const READ_WRITE = 6;

const TAGS: Readonly<Record<number, AclEntry['tag']>> = {
  1: 'owner',
  2: 'user',
  4: 'owning-group',
  8: 'group',
  16: 'mask',
  32: 'other',
};
const VERSION = 2;
const HEADER_BYTES = 4;
const ENTRY_BYTES = 8;

/** Reads the value of `system.posix_acl_access`; undefined where it is in no layout that we know. */
export function parseAcl(value: Uint8Array): readonly AclEntry[] | undefined {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  if (value.length < HEADER_BYTES || view.getUint32(0, true) !== VERSION) return undefined;
  const entries: AclEntry[] = [];
  for (let at = HEADER_BYTES; at + ENTRY_BYTES <= value.length; at += ENTRY_BYTES) {
    const tag = TAGS[view.getUint16(at, true)];
    if (tag === undefined) return undefined;
    const named = tag === 'user' || tag === 'group';
    entries.push({
      tag,
      permissions: view.getUint16(at + 2, true),
      id: named ? view.getUint32(at + 4, true) : undefined,
    });
  }
  return entries;
}

/** Which rule decides about somebody. */
export interface Judgement {
  readonly granted: boolean;
  /** The class whose entry decided. */
  readonly by: 'owner' | 'user-entry' | 'group' | 'group-entry' | 'other';
  /** Whether the entry would grant it, but for the list's mask. */
  readonly masked: boolean;
}

/** Whether the rules let somebody read and write. What root and capabilities may do besides is not asked here. */
export function judge(facts: FileFacts, acl: readonly AclEntry[] | undefined, who: Identity): Judgement {
  const entries = acl ?? fromMode(facts.mode);
  const mask = maskOf(entries);
  const decided = (by: Judgement['by'], permissions: number): Judgement => {
    const effective = by === 'owner' || by === 'other' ? permissions : permissions & mask;
    return { granted: grants(effective), by, masked: grants(permissions) && !grants(effective) };
  };
  if (who.uid === facts.uid) return decided('owner', permissionsOf(entries, 'owner'));
  const own = entries.find(({ tag, id }) => tag === 'user' && id === who.uid);
  if (own !== undefined) return decided('user-entry', own.permissions);

  const groups = new Set([who.gid, ...who.groups]);
  const matching = entries
    .filter(({ tag, id }) => (tag === 'owning-group' ? groups.has(facts.gid) : tag === 'group' && groups.has(id ?? -1)))
    .map(({ tag, permissions }) => decided(tag === 'group' ? 'group-entry' : 'group', permissions));
  // One group that grants is enough; if there are only others, "other" has no say any more.
  return matching.find(({ granted }) => granted) ?? matching[0] ?? decided('other', permissionsOf(entries, 'other'));
}

/** Whether the device's own group may read and write. With a list, the mode's group bits are its mask instead. */
export function groupGrants(facts: FileFacts, acl: readonly AclEntry[] | undefined): boolean {
  const entries = acl ?? fromMode(facts.mode);
  return grants(permissionsOf(entries, 'owning-group') & maskOf(entries));
}

function grants(permissions: number): boolean {
  return (permissions & READ_WRITE) === READ_WRITE;
}

function maskOf(entries: readonly AclEntry[]): number {
  return entries.find(({ tag }) => tag === 'mask')?.permissions ?? 7;
}

function permissionsOf(entries: readonly AclEntry[], tag: AclEntry['tag']): number {
  return entries.find((entry) => entry.tag === tag)?.permissions ?? 0;
}

function fromMode(mode: number): AclEntry[] {
  return (['other', 'owning-group', 'owner'] as const).map((tag, index) => ({
    tag,
    id: undefined,
    permissions: (mode >> (3 * index)) & 7,
  }));
}
