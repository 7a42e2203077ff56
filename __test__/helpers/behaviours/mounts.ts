// Host folders and files in the guest, for every accelerator.

import { execFile } from 'node:child_process';
import { cp, lstat, mkdir, readFile, readlink, realpath, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';

import { MicroVM, MicroVMError } from '../../../index.ts';
import { cachedUserland } from '../../../src/guest/rootfs.ts';
import { type AcceleratorName, bootGuest, PATIENCE_MS } from '../guest.ts';
import { children, holdings } from '../leftovers.ts';
import { temporaryFolder } from '../temporary-folder.ts';

/** Declares the tests. */
export function mountBehaviours(accelerator: AcceleratorName): void {
  test.serial(
    'folders and files of the host are read and written in the guest, and read-only ones only read',
    async (t) => {
      const folder = await temporaryFolder(t);
      await mkdir(join(folder, 'nested'));
      await writeFile(join(folder, 'given'), 'from the host');
      await writeFile(join(folder, 'settings'), 'one\n');
      const big = Buffer.alloc(3_000_000).map((_, index) => (index * 31) >> 7);
      await writeFile(join(folder, 'big'), big);
      const vm = await bootGuest(t, accelerator, {
        mounts: {
          '/work': { source: folder, cache: 'never', xattr: true },
          '/work/nested': { source: folder, readonly: true, cache: 'always' },
          '/mnt/with space/ä': { source: folder, threads: 2, cache: 'metadata' },
          '/etc/settings': join(folder, 'settings'),
          '/etc/fixed': { source: join(folder, 'settings'), readonly: true, cache: 'never' },
        },
      });
      const run = async (line: string): Promise<string> => (await vm.exec(line, { shell: true })).stdout;
      t.is(await run('cat /work/given'), 'from the host');
      t.is(await run('cat /work/nested/given "/mnt/with space/ä/given"'), 'from the hostfrom the host');

      await run(`cd /work && cp big copy && cmp big copy && mv copy moved && ln moved linked && ln -s moved symbolic &&
      mkdir made && chmod 750 made && mkfifo made/pipe && truncate -s 5 linked && df . && rm given`);
      t.deepEqual(await readFile(join(folder, 'moved')), Buffer.from(big.subarray(0, 5)));
      t.is((await stat(join(folder, 'moved'))).nlink, 2);
      t.is(await readlink(join(folder, 'symbolic')), 'moved');
      t.is((await stat(join(folder, 'made'))).mode & 0o777, 0o750);
      t.true((await lstat(join(folder, 'made/pipe'))).isFIFO());
      await t.throwsAsync(stat(join(folder, 'given')), { code: 'ENOENT' });

      const refused = await vm.exec('echo x > /work/nested/no', { shell: true, reject: false });
      t.regex(refused.stderr, /Read-only file system/);
      t.is(await run('echo two >> /etc/settings; cat /etc/settings /etc/fixed'), 'one\ntwo\none\ntwo\n');
      t.is(await readFile(join(folder, 'settings'), 'utf8'), 'one\ntwo\n');
      const fixed = await vm.exec('echo x > /etc/fixed', { shell: true, reject: false });
      t.regex(fixed.stderr, /Read-only file system/);

      // A pause takes the rings back from the daemons and hands them out again.
      const reading = run('for i in 1 2 3 4 5 6 7 8 9 10; do cat /work/big; done | wc -c');
      await vm.pause();
      await vm.resume();
      t.is(await reading, `${10 * big.length}\n`);

      // The guest sees what the host does meanwhile.
      await writeFile(join(folder, 'later'), 'later');
      t.is(await run('cat /work/later'), 'later');

      // Their requests do not pass this process; that the driver was interrupted for answers is seen where it runs here.
      const shares = (await vm.metrics()).devices.filter(({ type }) => type === 'fs');
      t.deepEqual([shares.length, shares.filter(({ queues }) => queues).length], [5, 0]);
      t.is((shares[0]?.acknowledgedInterrupts ?? 0) > 0, accelerator === 'kvm');
      t.is((await vm.stop({ timeout: PATIENCE_MS })).reason, 'power-off');
    },
  );

  test.serial('a daemon that is killed fails the machine, and nothing is left', async (t) => {
    const folder = await temporaryFolder(t);
    const before = await holdings();
    const vm = await bootGuest(t, accelerator, { mounts: { '/work': folder } });
    const running = t.throwsAsync(vm.exec('cd /work && while ls; do :; done', { shell: true }), {
      code: 'ERR_MACHINE_FAILED',
    });
    const waiting = t.throwsAsync(vm.exec('sleep', ['1000']), { code: 'ERR_MACHINE_FAILED' });
    const daemon = (await children()).find(({ name }) => name.startsWith('microvm-virtiof'));
    process.kill(daemon?.pid ?? 0, 'SIGKILL');
    const { reason, detail } = await vm.exited;
    t.is(reason, 'failed');
    t.is(detail, `The daemon that serves ${folder} at /work ended with signal 9`);
    await Promise.all([running, waiting]);
    t.deepEqual(await holdings(), before);
  });

  test.serial('a daemon that refuses its options is told with its words, and nothing is left', async (t) => {
    const folder = await temporaryFolder(t);
    const before = await holdings();
    const twice = ['map:0:0:10', 'map:0:5:10'];
    const error = await t.throwsAsync(
      MicroVM.create({ accelerator, mounts: { '/a': folder, '/b': { source: folder, translateUid: twice } } }),
      { instanceOf: MicroVMError },
    );
    t.is(error.code, 'ERR_MOUNT_FAILED');
    t.regex(error.message, /^The daemon that serves .* at \/b ended with exit code 1: .*internal filesystem/);
    t.deepEqual(await holdings(), before);
  });

  test.serial('a guest that cannot mount a share says so instead of running without it', async (t) => {
    const folder = await temporaryFolder(t);
    const error = await t.throwsAsync(
      MicroVM.create({ accelerator, bootTimeout: PATIENCE_MS, mounts: { '/init/inside-a-file': folder } }),
      { instanceOf: MicroVMError },
    );
    t.is(error.code, 'ERR_MOUNT_FAILED');
    t.regex(error.message, /The guest cannot mount \/init\/inside-a-file: /);
  });

  test.serial('a guest runs from a folder, its changes in memory', async (t) => {
    const { folder, boot } = await rootFolder(t, accelerator);
    const vm = await boot({ dir: folder });
    const { stdout } = await vm.exec('echo new > /new; echo changed > /etc/motd; cat /etc/motd /new; ls -d /proc/1', {
      shell: true,
    });
    t.is(stdout, 'changed\nnew\n/proc/1\n');
    await vm.stop();
    t.is(await readFile(join(folder, 'etc/motd'), 'utf8'), 'of the host\n');
    await t.throwsAsync(stat(join(folder, 'new')), { code: 'ENOENT' });
  });

  test.serial('a guest runs from a folder that it writes to, when that is asked for', async (t) => {
    const { folder, boot } = await rootFolder(t, accelerator);
    const vm = await boot({ dir: folder, writable: true });
    await vm.exec('echo changed > /etc/motd', { shell: true });
    await vm.stop();
    t.is(await readFile(join(folder, 'etc/motd'), 'utf8'), 'changed\n');
  });

  test.serial("a guest runs this host's own programs, and changes nothing here", async (t) => {
    const folder = await temporaryFolder(t);
    await writeFile(join(folder, 'given'), 'from the host');
    const name = `/var/microvm-test-${process.pid}`;
    const vm = await bootGuest(t, accelerator, {
      rootfs: 'host',
      mounts: { '/work': { source: folder, posixAcl: true, requestQueues: 3 } },
    });
    const { stdout } = await vm.exec(`cat /work/given; echo x > ${name} && cat ${name}; cat /etc/os-release`, {
      shell: true,
    });
    t.is(stdout, `from the hostx\n${await readFile('/etc/os-release', 'utf8')}`);
    await t.throwsAsync(stat(name), { code: 'ENOENT' });

    // An ordinary user can name itself only, which is root in the guest.
    const user = process.geteuid?.() ?? 0;
    await vm.exec('setfacl', ['-m', `u:${user === 0 ? 4000 : 0}:rw`, '/work/given']);
    const { stdout: list } = await promisify(execFile)('getfacl', ['-n', '-p', join(folder, 'given')]);
    t.regex(list, new RegExp(`^user:${user === 0 ? 4000 : user}:rw-$`, 'm'));

    const { stdout: interrupts } = await vm.exec('cat', ['/proc/interrupts']);
    // Over PCI each queue has an interrupt of its own, by whose names they can be counted.
    if (accelerator === 'tcg') t.is(interrupts.match(/-requests\.\d+$/gm)?.length, 1 + 3);
  });
}

/** The default userland's programs in a folder of the test's. */
async function rootFolder(
  t: ExecutionContext,
  accelerator: AcceleratorName,
): Promise<{ folder: string; boot: (rootfs: { dir: string; writable?: boolean }) => Promise<MicroVM> }> {
  const folder = join(await temporaryFolder(t), 'root');
  await cp(await realpath(cachedUserland()), folder, { recursive: true, verbatimSymlinks: true });
  await writeFile(join(folder, 'etc/motd'), 'of the host\n');
  return { folder, boot: (rootfs) => bootGuest(t, accelerator, { rootfs }) };
}
