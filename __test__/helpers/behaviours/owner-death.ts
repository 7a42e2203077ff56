// What is left when the process that owns a machine is killed: nothing that runs, and files until the next start.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import test from 'ava';

import type { MicroVMOptions } from '../../../index.ts';
import { type AcceleratorName, bootGuest, privateRuntimeFolder } from '../guest.ts';
import { processEnd, runtimeFolders } from '../leftovers.ts';

const OWNER = fileURLToPath(new URL('../../fixtures/owner.ts', import.meta.url));

/** Declares the test. */
export function ownerDeathBehaviours(accelerator: AcceleratorName, vsock: MicroVMOptions['vsock'] = 'unix'): void {
  privateRuntimeFolder();
  test.serial('a SIGKILLed owner takes its machine with it, and the next start sweeps its folder', async (t) => {
    const owner = spawn(process.execPath, [OWNER, accelerator, JSON.stringify(vsock)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.teardown(() => owner.kill('SIGKILL'));
    const [line] = (await once(createInterface(owner.stdout), 'line')) as [string];
    const { children, folders } = JSON.parse(line) as {
      children: { pid: number; name: string }[];
      folders: string[];
    };
    t.true(folders.length > 0);
    if (accelerator === 'tcg')
      t.deepEqual(
        children.map(({ name }) => name),
        ['qemu-system-x86'],
      );

    const ended = Promise.all(children.map(({ pid }) => processEnd(pid)));
    owner.kill('SIGKILL');
    await once(owner, 'exit');
    await ended;

    const vm = await bootGuest(t, accelerator, { vsock });
    const left = await runtimeFolders();
    t.deepEqual(
      folders.filter((folder) => left.includes(folder)),
      [],
    );
    await vm.stop();
  });
}

/** Declares the tests of owners that a signal ends as it ends any program: without a word of theirs. */
export function ownerSignalBehaviours(accelerator: AcceleratorName, vsock: MicroVMOptions['vsock'] = 'unix'): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    test.serial(`an owner that ${signal} ends takes its machine with it`, async (t) => {
      const owner = spawn(process.execPath, [OWNER, accelerator, JSON.stringify(vsock)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      t.teardown(() => owner.kill('SIGKILL'));
      const [line] = (await once(createInterface(owner.stdout), 'line')) as [string];
      const owned = JSON.parse(line) as { readonly children: readonly { readonly pid: number }[] };
      owner.kill(signal);
      t.deepEqual(await once(owner, 'exit'), [null, signal]);
      await Promise.all(owned.children.map(({ pid }) => processEnd(pid)));
      t.pass();
    });
  }
}
