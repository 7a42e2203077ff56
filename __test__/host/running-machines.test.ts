import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';

import { MicroVMError } from '../../src/errors.ts';
import { findMachine, runningMachines } from '../../src/host/running-machines.ts';
import { createRuntimeFolder } from '../../src/host/runtime-folder.ts';
import { startFixture } from '../helpers/fixture-process.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

test('machines are found by name and by id, while they run', async (t) => {
  const root = await temporaryFolder(t);
  const named = await createRuntimeFolder(root, { name: 'box' });
  const other = await createRuntimeFolder(root);
  t.is(named.name, 'box');
  t.regex(other.name, /^[0-9a-f]{12}$/);
  t.deepEqual((await runningMachines(root)).sort(), [other.name, 'box'].sort());
  t.like(await findMachine('box', root), { name: 'box', pid: process.pid, socket: named.socketPath('vsock') });
  const found = await findMachine(other.name, root);
  t.like(found, { name: other.name, socket: other.socketPath('vsock') });
  await Promise.all([named.remove(), other.remove()]);
  t.deepEqual(await runningMachines(root), []);
  await t.throwsAsync(findMachine('box', root), { code: 'ERR_MACHINE_NOT_FOUND' });
});

test('a name belongs to one machine at a time', async (t) => {
  const root = await temporaryFolder(t);
  const attempts = await Promise.allSettled(
    Array.from({ length: 8 }, () => createRuntimeFolder(root, { name: 'box' })),
  );
  const made = attempts.flatMap((attempt) => (attempt.status === 'fulfilled' ? [attempt.value] : []));
  t.is(made.length, 1);
  for (const attempt of attempts) {
    if (attempt.status === 'rejected') t.like(attempt.reason, { code: 'ERR_MACHINE_NAME_TAKEN' });
  }
  await made[0]?.remove();
  const again = await createRuntimeFolder(root, { name: 'box' });
  await again.remove();
});

test('an unknown name tells which ones run, and which was meant', async (t) => {
  const root = await temporaryFolder(t);
  const folders = [
    await createRuntimeFolder(root, { name: 'builder' }),
    await createRuntimeFolder(root, { name: 'web' }),
  ];
  t.teardown(() => Promise.all(folders.map((folder) => folder.remove())));
  const error = await t.throwsAsync(findMachine('bulider', root), { instanceOf: MicroVMError });
  t.is(error?.code, 'ERR_MACHINE_NOT_FOUND');
  t.is(error?.hint, 'Did you mean builder? Running: builder, web.');
  t.regex((await t.throwsAsync(findMachine('..', root), { instanceOf: MicroVMError }))?.hint ?? '', /builder, web/);
});

test('a machine whose owner was killed is gone, and its name is free again', async (t) => {
  const root = await temporaryFolder(t);
  const owner = await startFixture(t, 'hold-runtime-folder', root, 'box');
  t.is((await findMachine('box', root)).pid, owner.child.pid);
  await writeFile(join(owner.line, 'vsock'), '');
  await owner.kill('SIGKILL');
  await t.throwsAsync(findMachine('box', root), { code: 'ERR_MACHINE_EXITED', message: /is gone/ });
  const again = await createRuntimeFolder(root, { name: 'box' });
  t.is((await findMachine('box', root)).pid, process.pid);
  await again.remove();
});
