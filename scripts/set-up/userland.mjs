// The guest's small userland: busybox, its applets as links, and the handful of files that programs look for.

import { createHash } from 'node:crypto';
import { chmodSync, cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { BUSYBOX_COPYRIGHT, busyboxPath } from './busybox.mjs';
import { capture } from './commands.mjs';
import { CACHE, createFolder, exists, pointTo } from './folders.mjs';
import { SetUpError, done, nothingToDo } from './report.mjs';

const FILES = {
  'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n',
  'etc/group': 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\n',
  'etc/shells': '/bin/sh\n/bin/ash\n',
  'etc/hosts': '127.0.0.1 localhost\n::1 localhost\n',
  'etc/nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files dns\n',
  'etc/profile': 'export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n',
  'etc/os-release': 'NAME="microvm userland"\nID=microvm\nPRETTY_NAME="microvm userland (busybox)"\n',
};

const FOLDERS = [
  'dev',
  'proc',
  'sys',
  'run',
  'tmp',
  'root',
  'mnt',
  'home',
  'var/tmp',
  'usr/local/bin',
  'usr/local/sbin',
];

/** Makes `<cache>/guest/userland-<hash>` and points `userland-current` at it. */
export async function makeUserland() {
  const busybox = await busyboxPath();
  const hash = createHash('sha256')
    .update(readFileSync(busybox))
    .update(readFileSync(new URL(import.meta.url)));
  const name = `userland-${hash.digest('hex').slice(0, 12)}`;
  const folder = join(CACHE, 'guest', name);
  const link = join(CACHE, 'guest', 'userland-current');
  if (exists(join(folder, 'bin/busybox'))) {
    pointTo(link, name);
    return nothingToDo(name);
  }
  await createFolder(folder, (temporary) => fill(temporary, busybox));
  pointTo(link, name);
  return done(folder);
}

/**
 * @param {string} root
 * @param {string} busybox
 */
function fill(root, busybox) {
  for (const folder of FOLDERS) mkdirSync(join(root, folder), { recursive: true });
  chmodSync(join(root, 'tmp'), 0o1777);
  chmodSync(join(root, 'var/tmp'), 0o1777);
  chmodSync(join(root, 'root'), 0o700);
  for (const [path, text] of Object.entries(FILES)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }

  mkdirSync(join(root, 'bin'), { recursive: true });
  cpSync(busybox, join(root, 'bin/busybox'));
  chmodSync(join(root, 'bin/busybox'), 0o755);
  mkdirSync(join(root, 'usr/share/doc/busybox-static'), { recursive: true });
  cpSync(BUSYBOX_COPYRIGHT, join(root, 'usr/share/doc/busybox-static/copyright'));

  const { status, stdout, stderr } = capture(busybox, ['--list-full']);
  if (status !== 0) throw new SetUpError(`busybox --list-full failed: ${stderr.trim()}`);
  for (const applet of stdout.split('\n').filter((line) => line !== '' && line !== 'bin/busybox')) {
    const path = join(root, applet);
    mkdirSync(dirname(path), { recursive: true });
    symlinkSync('/bin/busybox', path);
  }
}
