// Mounted folders do what the file system beneath does, and say what it says when it cannot, for every accelerator.

import { execFile } from 'node:child_process';
import { lstat, mkdir, readFile, stat, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { ExecutionContext } from 'ava';

import type { MicroVM, MicroVMOptions } from '../../../index.ts';
import { type AcceleratorName, bootGuest } from '../guest.ts';
import { rootTest } from '../root-test.ts';
import { temporaryFolder } from '../temporary-folder.ts';

const execute = promisify(execFile);

/** Perl is on every Debian: system calls that no other program there makes, by their numbers. */
const RENAMEAT2 = 316;
const SETXATTR = 188;
const GETXATTR = 191;
const AT_FDCWD = -100;
const RENAME_EXCHANGE = 2;

const SET = `syscall(${SETXATTR}, $ARGV[0], $ARGV[1], $ARGV[2], length $ARGV[2], 0) == 0 or die "$!\\n"`;
const GET = `my $x = "\\0" x 64; my $n = syscall(${GETXATTR}, $ARGV[0], $ARGV[1], $x, 64); die "$!\\n" if $n < 0; print substr $x, 0, $n`;
const EXCHANGE = `syscall(${RENAMEAT2}, ${AT_FDCWD}, $ARGV[0], ${AT_FDCWD}, $ARGV[1], ${RENAME_EXCHANGE}) == 0 or die "$!\\n"`;

/** The name that a device node has in `ls` and in `stat`. */
const NULL_DEVICE = (1 << 8) | 3;

/** What Linux answers for a setting of the processor's that it does not have. */
const BROKEN = { folder: '/sys/devices/system/cpu/cpu0/power', file: 'autosuspend_delay_ms', good: 'control' };

/** Declares the tests. */
export function mountConductBehaviours(accelerator: AcceleratorName): void {
  rootTest('what a guest does to files is what the host finds', async (t) => {
    const folder = await temporaryFolder(t);
    const { vm, run } = await bootOn(t, accelerator, { '/mnt/work': { source: folder, xattr: true } });
    await run(
      'cd /mnt/work && mkdir a b && echo one > a/file && echo two > b/file && ln a/file hard && ln -s a/file soft',
    );
    const [file, hard] = [await stat(join(folder, 'a/file')), await stat(join(folder, 'hard'))];
    t.deepEqual([file.ino, file.nlink], [hard.ino, 2]);
    t.is(await readFile(join(folder, 'soft'), 'utf8'), 'one\n');
    await vm.exec('perl', ['-e', EXCHANGE, '/mnt/work/a', '/mnt/work/b']);
    t.is(await readFile(join(folder, 'a/file'), 'utf8'), 'two\n');
    await run('cd /mnt/work && mv -T a/file b/file && mv b c && ! mv -T c a/none/d');
    t.is(await readFile(join(folder, 'c/file'), 'utf8'), 'two\n');
    t.is((await stat(join(folder, 'hard'))).nlink, 1);

    // Not every file system has attributes of users; then the guest is told what this host is.
    const lacking = await execute('perl', ['-e', SET, join(folder, 'hard'), 'user.from-host', 'back']).then(
      () => undefined,
      ({ stderr }: { stderr: string }) => stderr.trim(),
    );
    const set = `perl -e '${SET}' /mnt/work/hard user.from-guest grüße`;
    if (lacking === undefined) {
      t.is((await vm.exec('perl', ['-e', GET, '/mnt/work/hard', 'user.from-host'])).stdout, 'back');
      t.is(await problem(vm, `perl -e '${GET}' /mnt/work/hard user.none`), 'No data available');
      await run(set);
      t.is((await execute('perl', ['-e', GET, join(folder, 'hard'), 'user.from-guest'])).stdout, 'grüße');
    } else {
      t.is(await problem(vm, set), lacking);
    }

    await run('cd /mnt/work && mknod null c 1 3 && mkfifo pipe && chown 4000:4001 null && chmod 4711 null');
    const device = await lstat(join(folder, 'null'));
    t.true(device.isCharacterDevice());
    t.deepEqual([device.rdev, device.uid, device.gid, device.mode & 0o7777], [NULL_DEVICE, 4000, 4001, 0o4711]);
    t.true((await lstat(join(folder, 'pipe'))).isFIFO());
    await run('cd /mnt/work && truncate -s 1G sparse && truncate -s 3 hard && touch -d @1000000000 hard');
    const sparse = await stat(join(folder, 'sparse'));
    t.deepEqual([sparse.size, sparse.blocks < 100], [2 ** 30, true]);
    const times = await stat(join(folder, 'hard'));
    t.deepEqual([times.size, times.mtimeMs], [3, 1e12]);

    const { bsize, blocks } = await statfs(folder);
    t.is(await run('df -B1 --output=size /mnt/work | tail -n 1'), String(bsize * blocks));
    t.is(await run('umount /mnt/work && ls /mnt/work | wc -l'), '0');
    t.is(await run('mount -t virtiofs fs0 /mnt/work && cat /mnt/work/c/file'), 'two');
  });

  rootTest('a full disk, a read-only one and a broken one are told as they are on the host', async (t) => {
    const folder = await temporaryFolder(t);
    const [full, fixed] = [join(folder, 'full'), join(folder, 'fixed')];
    await mkdir(full);
    await mkdir(fixed);
    await mountHere(t, ['-t', 'tmpfs', '-o', 'size=1M', 'none', full]);
    await writeFile(join(fixed, 'file'), 'text');
    await mountHere(t, ['--bind', fixed, fixed]);
    await execute('mount', ['-o', 'remount,bind,ro', fixed]);
    const { vm, run } = await bootOn(t, accelerator, {
      '/full': { source: full },
      '/full-later': { source: full, cache: 'always', writeback: true },
      '/fixed': { source: fixed },
      '/broken': { source: BROKEN.folder },
    });
    t.is(await problem(vm, 'head -c 2M /dev/zero > /full/file'), 'No space left on device');
    t.is((await stat(join(full, 'file'))).size, 2 ** 20);
    t.is(await problem(vm, 'mkdir /full/folder && cp /etc/os-release /full/folder/file'), 'No space left on device');
    t.is(await run('rm /full/file && echo fits > /full/small && cat /full/small'), 'fits');
    // What the guest has delayed is told when it waits for it.
    t.is(await problem(vm, 'dd if=/dev/zero of=/full-later/file bs=1M count=2 conv=fsync'), 'No space left on device');

    t.is(await problem(vm, 'echo x > /fixed/new'), 'Read-only file system');
    t.is(await problem(vm, 'rm /fixed/file'), 'Read-only file system');
    t.is(await run('cat /fixed/file'), 'text');

    t.is(await problem(vm, `cat /broken/${BROKEN.file}`), 'Input/output error');
    t.is(await run(`cat /broken/${BROKEN.good}`), (await readFile(join(BROKEN.folder, BROKEN.good), 'utf8')).trim());
  });
}

/** A guest with this host's programs. */
async function bootOn(
  t: ExecutionContext,
  accelerator: AcceleratorName,
  mounts: MicroVMOptions['mounts'],
): Promise<{ vm: MicroVM; run: (line: string) => Promise<string> }> {
  const vm = await bootGuest(t, accelerator, { rootfs: 'host', mounts });
  return { vm, run: async (line) => (await vm.exec(line, { shell: true })).stdout.trim() };
}

/** What a line that fails complains of, without the names in it. */
async function problem(vm: MicroVM, line: string): Promise<string> {
  const { stderr, exitCode } = await vm.exec(line, { shell: true, reject: false });
  return exitCode === 0 ? 'it succeeded' : (/([^:\n]+)\s*$/.exec(stderr.split('\n')[0] ?? '')?.[1] ?? '').trim();
}

async function mountHere(t: ExecutionContext, words: readonly string[]): Promise<void> {
  await execute('mount', words);
  t.teardown(() => execute('umount', ['-l', words.at(-1) ?? '']));
}
