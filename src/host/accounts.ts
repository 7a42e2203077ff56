// Users and groups by number. The addon asks the C library, which knows of every database; without the addon the two
// files have to do.

import { readFileSync } from 'node:fs';
import type { Binding } from '../binding.ts';

/** A user as the database has it. */
export interface AccountEntry {
  readonly name: string;
  readonly gid: number;
}

export interface Accounts {
  account(uid: number): AccountEntry | undefined;
  groupName(gid: number): string | undefined;
  /** The groups that a user has after a new login, the primary one among them. */
  groupsOf(entry: AccountEntry): readonly number[];
}

/** The system's database by the addon, or by its files where there is no addon or the database does not answer. */
export function systemAccounts(binding: Binding | undefined): Accounts {
  const files = (): Accounts => accountsOfFiles(textOf('/etc/passwd'), textOf('/etc/group'));
  if (binding === undefined) return files();
  const orFiles = <T>(ask: () => T, instead: (accounts: Accounts) => T): T => {
    try {
      return ask();
    } catch {
      // A directory service that is down, an image without the files: a diagnosis is wanted then more than ever.
      return instead(files());
    }
  };
  return {
    account: (uid) =>
      orFiles(
        () => binding.accountOf(uid) ?? undefined,
        (accounts) => accounts.account(uid),
      ),
    groupName: (gid) =>
      orFiles(
        () => binding.groupName(gid) ?? undefined,
        (accounts) => accounts.groupName(gid),
      ),
    groupsOf: (entry) =>
      orFiles(
        () => binding.groupsOfUser(entry.name, entry.gid),
        (accounts) => accounts.groupsOf(entry),
      ),
  };
}

/** The same from the text of /etc/passwd and /etc/group. */
export function accountsOfFiles(passwd: string, group: string): Accounts {
  const users = fieldsOf(passwd);
  const groups = fieldsOf(group).map(([name = '', , gid, members = '']) => ({
    name,
    gid: Number(gid),
    members: members.split(','),
  }));
  return {
    account(uid) {
      const fields = users.find(([, , number]) => number === String(uid));
      return fields && { name: fields[0] ?? '', gid: Number(fields[3]) };
    },
    groupName: (gid) => groups.find((entry) => entry.gid === gid)?.name,
    groupsOf: ({ name, gid }) => [
      gid,
      ...groups.filter(({ members }) => members.includes(name)).map((entry) => entry.gid),
    ],
  };
}

function fieldsOf(text: string): string[][] {
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'));
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
