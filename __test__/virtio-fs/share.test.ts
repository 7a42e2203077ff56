import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';

import { normalize } from '../../src/config/normalize.ts';
import type { MicroVMOptions } from '../../src/config/options.ts';
import { shareArguments } from '../../src/virtio-fs/daemon.ts';
import { findShares, type Share, shareModules } from '../../src/virtio-fs/share.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

const shares = async (options: MicroVMOptions): Promise<Share[]> => findShares(normalize(options));

test('each share has a tag and a word for the agent, in which nothing ends it too early', async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, 'a file,"1"'), '');
  const found = await shares({
    rootfs: { dir: folder },
    mounts: { '/b c': folder, '/a': { source: join(folder, 'a file,"1"'), readonly: true } },
  });
  t.deepEqual(
    found.map(({ word }) => word),
    ['microvm.root=root,overlay', 'microvm.mount=fs0,ro,/a,a%20file%2c%221%22', 'microvm.mount=fs1,rw,/b%20c'],
  );
});

test('the modules are those that the shares take', async (t) => {
  const none = normalize();
  t.deepEqual(shareModules(await findShares(none), none), []);
  const folder = normalize({ mounts: { '/a': '/tmp' } });
  t.deepEqual(shareModules(await findShares(folder), folder), ['virtiofs']);
  const root = normalize({ rootfs: 'host' });
  t.deepEqual(shareModules(await findShares(root), root), ['virtiofs', 'overlay']);
  const writable = normalize({ rootfs: { dir: '/', writable: true } });
  t.deepEqual(shareModules(await findShares(writable), writable), ['virtiofs']);
});

test("options become the daemon's", async (t) => {
  const [share] = await shares({
    mounts: {
      '/a': {
        source: '/tmp',
        readonly: true,
        cache: 'metadata',
        writeback: true,
        xattr: true,
        threads: 3,
        requestQueues: 4,
        sandbox: 'none',
        translateUid: ['map:0:1000:1', 'forbid-guest:5:1'],
        translateGid: [],
      },
    },
  });
  t.deepEqual(shareArguments(share as Share, '/s'), [
    ...['--shared-dir', '/tmp', '--socket-path', '/s', '--sandbox', 'none', '--cache', 'metadata'],
    ...['--thread-pool-size', '3', '--request-queues', '4', '--readonly', '--writeback', '--xattr'],
    ...['--translate-uid', 'map:0:1000:1', '--translate-uid', 'forbid-guest:5:1'],
  ]);
});

test("this host's root folder is read-only and has no mount points of its own", async (t) => {
  const [root] = await shares({ rootfs: 'host' });
  const args = shareArguments(root as Share, '/s');
  t.deepEqual(args.slice(0, 2), ['--shared-dir', '/']);
  t.true(args.includes('--readonly') && args.includes('--no-announce-submounts'));
});

test('a source that does not exist, or is neither folder nor file, is told', async (t) => {
  await t.throwsAsync(shares({ mounts: { '/a': '/no/where' } }), {
    code: 'ERR_MOUNT_SOURCE',
    message: /\/no\/where, which is to be mounted at \/a, does not exist/,
  });
  await t.throwsAsync(shares({ mounts: { '/a': '/dev/null' } }), {
    code: 'ERR_MOUNT_SOURCE',
    message: /no folder or file/,
  });
  await t.throwsAsync(shares({ rootfs: { dir: '/no/where' } }), { code: 'ERR_ROOTFS_MISSING' });
  await t.throwsAsync(shares({ rootfs: { dir: '/dev/null' } }), { code: 'ERR_ROOTFS_INVALID' });
});

test('a single file without a sandbox is refused', async (t) => {
  const folder = await temporaryFolder(t);
  await mkdir(join(folder, 'x'));
  await writeFile(join(folder, 'file'), '');
  const source = join(folder, 'file');
  await t.throwsAsync(shares({ mounts: { '/a': { source, sandbox: 'none' } } }), { code: 'ERR_NOT_SUPPORTED' });
});

test('access control lists are of the same users on both sides', async (t) => {
  const [share] = await shares({ mounts: { '/a': { source: '/tmp', posixAcl: true } } });
  const args = shareArguments(share as Share, '/s');
  t.true(args.includes('--posix-acl'));
  t.false(args.includes('--translate-uid'));
  t.is(args.includes('--uid-map'), process.geteuid?.() !== 0);
});

test.serial('an ordinary user is root in the namespace of a share with access control lists', async (t) => {
  const { geteuid, getegid } = process;
  t.teardown(() => Object.assign(process, { geteuid, getegid }));
  Object.assign(process, { geteuid: () => 1000, getegid: () => 1001 });
  const [share] = await shares({ mounts: { '/a': { source: '/tmp', posixAcl: true } } });
  const args = shareArguments(share as Share, '/s');
  t.deepEqual(args.slice(args.indexOf('--posix-acl')), [
    '--posix-acl',
    ...['--uid-map', ':0:1000:1:', '--gid-map', ':0:1001:1:'],
  ]);
  t.throws(() => shareArguments({ ...(share as Share), sandbox: 'none' }, '/s'), { code: 'ERR_NOT_SUPPORTED' });
});
