// What options of mounts do with a real guest: access control lists, and several request queues.

import { execFile } from 'node:child_process';
import { chmod, chown, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';

import type { KernelFiles } from '../../../index.ts';
import { type AcceleratorName, bootGuest } from '../guest.ts';
import { children, lastChild } from '../leftovers.ts';
import { rootTest } from '../root-test.ts';
import { temporaryFolder } from '../temporary-folder.ts';

const execute = promisify(execFile);

/** Declares the tests of owners and access control lists: other users than this one take root. */
export function ownerBehaviours(accelerator: AcceleratorName): void {
  rootTest(
    'owners are translated, access control lists are the same on both sides and in force in the guest',
    async (t) => {
      const folder = await temporaryFolder(t);
      await chmod(folder, 0o755);
      const file = join(folder, 'file');
      await writeFile(file, 'text\n', { mode: 0o600 });
      await mkdir(join(folder, 'inherits'));
      const translated = await temporaryFolder(t);
      await writeFile(join(translated, 'given'), '');
      await chown(join(translated, 'given'), 5001, 6001);
      const vm = await bootGuest(t, accelerator, {
        rootfs: 'host',
        mounts: {
          '/work': { source: folder, posixAcl: true, cache: 'never' },
          '/mnt': { source: translated, translateUid: ['map:0:5000:10'], translateGid: ['map:0:6000:10'] },
        },
      });
      const asUser = async (user: number, line: string): Promise<string> => {
        const { stdout, stderr } = await vm.exec(line, { shell: true, user, group: user, reject: false });
        return stdout + stderr.replace(/.*: /, '');
      };
      const here = async (name: string): Promise<string> =>
        (await execute('getfacl', ['-n', '-p', '-c', join(folder, name)])).stdout;

      t.is(await asUser(4000, 'cat /work/file'), 'Permission denied\n');
      // The guest's list is the host's.
      await vm.exec('setfacl', ['-m', 'u:4000:r', '/work/file']);
      t.is(await asUser(4000, 'cat /work/file'), 'text\n');
      t.is(await asUser(4000, 'echo more >> /work/file'), 'Permission denied\n');
      t.is(await asUser(4001, 'cat /work/file'), 'Permission denied\n');
      t.is(await here('file'), 'user::rw-\nuser:4000:r--\ngroup::---\nmask::r--\nother::---\n\n');
      // The host's is the guest's.
      await execute('setfacl', ['-m', 'u:4001:rw', file]);
      t.is(await asUser(4001, 'echo more >> /work/file && cat /work/file'), 'text\nmore\n');
      t.is((await vm.exec('getfacl', ['-n', '-p', '-c', '/work/file'])).stdout, await here('file'));
      // The mode's group is the most that the list gives.
      await vm.exec('chmod', ['640', '/work/file']);
      t.is(await asUser(4001, 'echo more >> /work/file'), 'Permission denied\n');
      t.regex(await here('file'), /^user:4001:rw-\s+#effective:r--$/m);
      // What a folder hands on reaches files that either side makes.
      await vm.exec('setfacl', ['-d', '-m', 'u:4000:rw', '/work/inherits']);
      await vm.exec('umask 077; echo text > /work/inherits/guest', { shell: true });
      await writeFile(join(folder, 'inherits/host'), 'text\n');
      t.is(await asUser(4000, 'cat /work/inherits/guest /work/inherits/host'), 'text\ntext\n');
      t.regex(await here('inherits/guest'), /^user:4000:rw-/m);
      t.is((await vm.exec('stat -c %u:%g /mnt/given')).stdout, '1:1\n');
      await vm.exec('touch /mnt/made && chown 2:3 /mnt/made');
      const made = await stat(join(translated, 'made'));
      t.deepEqual([made.uid, made.gid], [5002, 6003]);
      await vm.exec('setfacl', ['-b', '/work/file']);
      t.is(await here('file'), 'user::rw-\ngroup::---\nother::---\n\n');
    },
  );
}

/** What each of a mount's two request queues does for a guest with two processors. */
export interface QueueKernel {
  /** What the title calls it. */
  readonly name: string;
  readonly kernel?: KernelFiles;
  /** How many queues its driver uses. */
  readonly uses: number;
}

/** Declares the test of request queues under a kernel. */
export function requestQueueBehaviours(accelerator: AcceleratorName, { name, kernel, uses }: QueueKernel): void {
  test.serial(`of two request queues ${name} uses ${uses}, and every file is right`, async (t) => {
    const READS = 300;
    const folder = await temporaryFolder(t);
    const content = Buffer.alloc(READS * 4096).map((_, index) => (index * 31) >> 7);
    await writeFile(join(folder, 'data'), content);
    const vm = await bootGuest(t, accelerator, {
      kernel,
      cpus: 2,
      mounts: { '/work': { source: folder, requestQueues: 2, cache: 'never' } },
    });
    const daemon = (await children()).find(({ name }) => name.startsWith('microvm-virtiof'));
    const serving = await lastChild(daemon?.pid ?? 0);
    const before = await waits(serving);
    // Each of the processors asks for each page by itself.
    const copy = (cpu: number): string => `taskset -c ${cpu} dd if=/work/data of=/work/copy${cpu} bs=4096`;
    await vm.exec(`${copy(0)} & ${copy(1)} && wait $!`, { shell: true });
    const after = await waits(serving);
    for (const cpu of [0, 1]) t.deepEqual(await readFile(join(folder, `copy${cpu}`)), content);
    const busy = [...after].filter(([thread, count]) => count - (before.get(thread) ?? 0) > READS / 2);
    t.is(busy.length, uses);
  });
}

/** How often each thread of a process has waited for something. */
async function waits(pid: number): Promise<ReadonlyMap<string, number>> {
  const threads = await readdir(`/proc/${pid}/task`);
  const entries = threads.map(async (thread): Promise<[string, number]> => {
    const status = await readFile(`/proc/${pid}/task/${thread}/status`, 'utf8');
    return [thread, Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)?.[1])];
  });
  return new Map(await Promise.all(entries));
}
