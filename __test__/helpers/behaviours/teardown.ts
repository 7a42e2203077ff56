// Owners that end without stopping their machine.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import test from 'ava';

import type { MicroVMOptions } from '../../../index.ts';
import type { AcceleratorName } from '../guest.ts';
import { children, processEnd, runtimeFolders } from '../leftovers.ts';

const OWNER = fileURLToPath(new URL('../../fixtures/leaving-owner.ts', import.meta.url));

interface Owned {
  readonly children: readonly { readonly pid: number }[];
  readonly folders: readonly string[];
}

/** Declares the tests. */
export function teardownBehaviours(accelerator: AcceleratorName, vsock: MicroVMOptions['vsock'] = 'unix'): void {
  for (const [how, exitCode] of [
    ['exit', 4],
    ['throw', 1],
  ] as const) {
    test.serial(`an owner that ends by ${how} leaves no process and no folder, and keeps its exit code`, async (t) => {
      const owner = spawn(process.execPath, [OWNER, accelerator, how, JSON.stringify(vsock)], {
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      t.teardown(() => owner.kill('SIGKILL'));
      const exited = once(owner, 'exit');
      const [line] = (await once(createInterface(owner.stdout), 'line')) as [string];
      const owned = JSON.parse(line) as Owned;
      t.deepEqual(await exited, [exitCode, null]);
      await Promise.all(owned.children.map(({ pid }) => processEnd(pid)));
      const left = await runtimeFolders();
      t.deepEqual(
        owned.folders.filter((folder) => left.includes(folder)),
        [],
      );
    });
  }

  test.serial('a worker that is terminated takes its machine with it', async (t) => {
    const worker = new Worker(OWNER, { argv: [accelerator, 'stay', JSON.stringify(vsock)] });
    const [owned] = (await once(worker, 'message')) as [Owned];
    await worker.terminate();
    await Promise.all(owned.children.map(({ pid }) => processEnd(pid)));
    const left = new Set((await children()).map(({ pid }) => pid));
    t.deepEqual(
      owned.children.filter(({ pid }) => left.has(pid)),
      [],
    );
  });
}
