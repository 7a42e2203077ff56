import { execFileSync } from 'node:child_process';
import { userInfo } from 'node:os';
import test from 'ava';

import { accountsOfFiles, systemAccounts } from '../../src/host/accounts.ts';
import { loadBinding } from '../../src/native.ts';

const PASSWD = '# comment\nroot:x:0:0:root:/root:/bin/sh\n\nann:x:1000:50::/:/bin/sh\n';
const GROUP = 'root:x:0:\nkvm:x:104:bob,ann\nkvmx:x:105:anna\n';

test('users and groups are found by number in the files', (t) => {
  const accounts = accountsOfFiles(PASSWD, GROUP);
  t.deepEqual(accounts.account(1000), { name: 'ann', gid: 50 });
  t.is(accounts.account(100), undefined);
  t.is(accounts.groupName(104), 'kvm');
  t.is(accounts.groupName(10), undefined);
});

test('groups of a user are those that list the whole name, and the primary one', (t) => {
  t.deepEqual(accountsOfFiles(PASSWD, GROUP).groupsOf({ name: 'ann', gid: 50 }), [50, 104]);
});

for (const [name, accounts] of [
  ['the addon', () => systemAccounts(loadBinding())],
  ['the files', () => systemAccounts(undefined)],
] as const) {
  test(`${name} and the system agree on this user`, (t) => {
    const { uid, username, gid } = userInfo();
    const account = accounts().account(uid);
    t.deepEqual({ ...account }, { name: username, gid });
    const groups = execFileSync('id', ['-G', username], { encoding: 'utf8' }).trim().split(' ').map(Number);
    t.deepEqual(new Set(accounts().groupsOf({ name: username, gid })), new Set(groups));
  });
}

test('a database that does not answer leaves the files to do', (t) => {
  const fail = (): never => {
    throw new Error('getpwuid_r failed');
  };
  const broken = { ...loadBinding(), accountOf: fail, groupName: fail, groupsOfUser: fail };
  const [accounts, files] = [systemAccounts(broken), systemAccounts(undefined)];
  t.deepEqual(accounts.account(0), files.account(0));
  t.is(accounts.groupName(0), files.groupName(0));
  t.deepEqual(accounts.groupsOf({ name: 'root', gid: 0 }), files.groupsOf({ name: 'root', gid: 0 }));
});
