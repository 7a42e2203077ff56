// Why somebody may not open the KVM device, and what mends it.

import { type Judgement, groupGrants, judge } from '../acl.ts';
import { containerOf, groupAdvice } from '../container.ts';
import type { Account, AclEntry, FileFacts, Host, Identity } from '../host.ts';
import { asRoot, type Fix, type FixCommand, fix, type Problem } from '../model.ts';
import { installCommands } from '../packages.ts';

/** The one group that is made for this device: others may grant far more than it. */
const KVM_GROUP = 'kvm';
/** Whom the kernel shows for owners that a user namespace does not map. */
const OVERFLOW_ID = 65_534;

interface Case {
  readonly host: Host;
  readonly device: string;
  readonly facts: FileFacts;
  readonly acl: readonly AclEntry[] | undefined;
  readonly aclIsKnown: boolean;
  readonly who: Identity;
  readonly account: Account | undefined;
  readonly judgement: Judgement;
  readonly groupGrants: boolean;
  readonly inProcess: boolean;
  readonly inDatabase: boolean;
}

/** The problem of a device that `who` may not open. */
export function permissionProblem(host: Host, device: string, facts: FileFacts, who: Identity): Problem {
  const found = caseOf(host, device, facts, who);
  return {
    id: 'kvm-permission',
    check: 'kvm-access',
    title: `${device} is not accessible by ${found.account?.name ?? `user ${who.uid}`}`,
    ...causeAndFixes(found),
  };
}

/** Whether the rules let `who` open the device; undefined where its access control list cannot be read. */
export function wouldBeGranted(host: Host, device: string, facts: FileFacts, who: Identity): boolean | undefined {
  const acl = host.acl(device);
  return acl === 'unknown' ? undefined : judge(facts, acl, who).granted;
}

function caseOf(host: Host, device: string, facts: FileFacts, who: Identity): Case {
  const read = host.acl(device);
  const acl = read === 'unknown' ? undefined : read;
  const account = host.account(who.uid);
  return {
    host,
    device,
    facts,
    acl,
    aclIsKnown: read !== 'unknown',
    who,
    account,
    judgement: judge(facts, acl, who),
    groupGrants: groupGrants(facts, acl),
    inProcess: who.gid === facts.gid || who.groups.includes(facts.gid),
    inDatabase: account !== undefined && (account.gid === facts.gid || host.groupsOf(account).includes(facts.gid)),
  };
}

interface Explanation {
  readonly causes: readonly string[];
  readonly fixes: readonly Fix[];
}

function causeAndFixes(found: Case): Explanation {
  const { host, device, facts, judgement, aclIsKnown, inProcess } = found;
  const group = `'${groupLabel(host, facts.gid)}'`;
  if (isOnNodevMount(host, device)) {
    return {
      causes: [`the file system that holds ${device} is mounted with nodev, which disables every device on it`],
      fixes: [],
    };
  }
  if (isUnmapped(host, facts)) {
    const container = containerOf(host);
    return {
      causes: [
        `this user namespace does not map the owner or the group of ${device}, so nobody in it can be granted access`,
      ],
      fixes: container === undefined ? [] : [fix(container.advice)],
    };
  }
  if (judgement.granted && (aclIsKnown || !inProcess)) {
    const owned = inProcess ? `your process belongs to the ${group} group and` : 'its permissions grant it, yet';
    return {
      causes: [`${owned} ${device} still rejects read/write access: a security module (SELinux, AppArmor) refuses`],
      fixes: [],
    };
  }
  return { causes: [refusal(found, group)], fixes: [...grantFixes(found), ...containerFixes(found)] };
}

/** What is granted inside a container is lost with it: the way that lasts is where it is started. */
function containerFixes({ host, facts, groupGrants: grants, inProcess }: Case): Fix[] {
  const container = containerOf(host);
  const advice = container && grants && !inProcess ? groupAdvice(container, facts.gid) : undefined;
  return advice === undefined ? [] : [fix(advice)];
}

/** What decided against it, by the rules of permissions. */
function refusal({ judgement, device, facts, inDatabase, ...found }: Case, group: string): string {
  // Its access control list may say otherwise, and cannot be read.
  if (judgement.granted) {
    return `your process belongs to the ${group} group, but ${device} still rejects read/write access`;
  }
  if (judgement.by === 'owner') {
    return `you own ${device}, but its owner's permissions do not grant read/write access (mode ${octal(facts.mode)})`;
  }
  if (judgement.by === 'user-entry') {
    return judgement.masked
      ? `the access control list of ${device} has an entry for you, but its mask takes read/write access away`
      : `the access control list of ${device} has an entry for you that does not grant read/write access`;
  }
  if (!found.groupGrants) {
    const masked = judgement.masked ? ': the mask of its access control list takes them away' : '';
    return `${device} is owned by group ${group}, but group permissions do not grant read/write access (mode ${octal(facts.mode)})${masked}`;
  }
  if (inDatabase) return `you are in the ${group} group, but this login session predates the change: log in again`;
  return `${device} is owned by group ${group}, which your user is not in`;
}

function grantFixes(found: Case): Fix[] {
  const { account, host, device, facts, judgement, inProcess, inDatabase } = found;
  // Somebody without an entry in the database cannot be named to any tool.
  if (account === undefined) return [];
  if (judgement.by === 'owner' && !judgement.granted) {
    return [fix(`give the owner of ${device} read/write access`, asRoot('chmod', 'u+rw', device))];
  }
  const grant = [...installSetfacl(host), asRoot('setfacl', '-m', `u:${account.name}:rw`, device)];
  const name = host.groupName(facts.gid);
  const note = host.program('setfacl') === undefined ? ' (setfacl is in the package acl)' : '';
  const helpsByGroup = name === KVM_GROUP && found.groupGrants && !inProcess && !inDatabase;
  if (!helpsByGroup) {
    return [fix(`grant ${account.name} access to ${device} until the next boot${note}`, ...grant)];
  }
  return [
    {
      description: `add ${account.name} to the '${name}' group and grant access now${note}`,
      commands: [asRoot('usermod', '-aG', name, account.name), ...grant],
      needsRelogin: true,
    },
  ];
}

function installSetfacl(host: Host): readonly FixCommand[] {
  return host.program('setfacl') === undefined ? installCommands(host, 'acl') : [];
}

function groupLabel(host: Host, gid: number): string {
  return host.groupName(gid) ?? `gid ${gid}`;
}

function isUnmapped(host: Host, { uid, gid }: FileFacts): boolean {
  if (uid !== OVERFLOW_ID && gid !== OVERFLOW_ID) return false;
  const map = host.readText('/proc/self/uid_map');
  // The first namespace maps all there is.
  return map.ok && !/^\s*0\s+0\s+4294967295\s*$/.test(map.value);
}

function isOnNodevMount(host: Host, device: string): boolean {
  const mounts = host.readText('/proc/self/mountinfo');
  if (!mounts.ok) return false;
  let best = { point: '', nodev: false };
  for (const line of mounts.value.split('\n')) {
    const [, , , , point, options] = line.split(' ');
    if (point === undefined || options === undefined) continue;
    const path = unescapeMount(point);
    const holds = path === '/' || path === device || device.startsWith(`${path}/`);
    // Of several mounts at one place the last is on top.
    if (holds && path.length >= best.point.length) best = { point: path, nodev: options.split(',').includes('nodev') };
  }
  return best.nodev;
}

/** The kernel writes spaces and the like in mount points in octal. */
function unescapeMount(path: string): string {
  return path.replaceAll(/\\(\d{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

function octal(mode: number): string {
  return `0${(mode & 0o777).toString(8).padStart(3, '0')}`;
}
