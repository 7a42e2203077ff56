// Single files in the guest where their place is hard, and daemons of which a part dies, for every accelerator.

import { cp, mkdir, readdir, readFile, realpath, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';

import { cachedUserland } from '../../../src/guest/rootfs.ts';
import { type AcceleratorName, bootGuest } from '../guest.ts';
import { children, holdings, lastChild } from '../leftovers.ts';
import { temporaryFolder } from '../temporary-folder.ts';

/** Declares the tests. */
export function mountedFileBehaviours(accelerator: AcceleratorName): void {
  test.serial("a file in a root folder of the host's leaves nothing of the agent's there", async (t) => {
    const folder = await temporaryFolder(t);
    const root = join(folder, 'root');
    await cp(await realpath(cachedUserland()), root, { recursive: true, verbatimSymlinks: true });
    await mkdir(join(folder, 'fixed'));
    await writeFile(join(folder, 'fixed/given'), 'below');
    await writeFile(join(folder, 'file'), 'above');
    const before = await readdir(root);
    const vm = await bootGuest(t, accelerator, {
      rootfs: { dir: root, writable: true },
      mounts: {
        '/etc/given': join(folder, 'file'),
        // What is there cannot be opened to be written, and need not be.
        '/mnt/fixed': { source: join(folder, 'fixed'), readonly: true },
        '/mnt/fixed/given': join(folder, 'file'),
      },
    });
    const { stdout } = await vm.exec('cat /etc/given /mnt/fixed/given', { shell: true });
    t.is(stdout, 'aboveabove');
    await vm.stop();
    const made = (await readdir(root)).filter((name) => !before.includes(name));
    t.deepEqual(
      made.filter((name) => !['dev', 'mnt', 'proc', 'run', 'sys', 'tmp'].includes(name)),
      [],
    );
    t.is(await readFile(join(root, 'etc/given'), 'utf8'), '');
    t.is(await readFile(join(folder, 'fixed/given'), 'utf8'), 'below');
  });

  test.serial('a server that is killed under its daemon fails the machine, and nothing is left', async (t) => {
    const folder = await temporaryFolder(t);
    const before = await holdings();
    const vm = await bootGuest(t, accelerator, { mounts: { '/work': folder } });
    const daemon = (await children()).find(({ name }) => name.startsWith('microvm-virtiof'));
    process.kill(await lastChild(daemon?.pid ?? 0), 'SIGKILL');
    const { reason, detail } = await vm.exited;
    t.is(reason, 'failed');
    t.is(
      detail,
      `The daemon that serves ${folder} at /work ended with exit code 137: Child process terminated by signal 9`,
    );
    t.deepEqual(await holdings(), before);
  });
}
