// Watches by the real agent, run as a process of this machine, and by agents that mean harm.

import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';

import { MicroVMError } from '../../src/errors.ts';
import { GuestFileError } from '../../src/guest-api/file-error.ts';
import { GuestFiles } from '../../src/guest-api/guest-files.ts';
import type { GuestWatcher, WatchEvent } from '../../src/guest-api/watch.ts';
import { agentByHand } from '../helpers/agent-by-hand.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

/** Events until this one, which is the last. */
async function until(watcher: GuestWatcher, eventType: string, filename: string): Promise<WatchEvent[]> {
  const events: WatchEvent[] = [];
  for (;;) {
    const { value } = await watcher.next();
    if (!value) return events;
    events.push(value);
    if (value.eventType === eventType && value.filename === filename) return events;
  }
}

test('a folder tells what comes, changes and goes, as it happens', async (t) => {
  const agent = await agentByHand(t);
  const folder = await temporaryFolder(t);
  const watcher = new GuestFiles(agent.api).watch(folder);
  await watcher.ready;
  await writeFile(join(folder, 'one'), 'x');
  t.deepEqual(await until(watcher, 'change', 'one'), [
    { eventType: 'rename', filename: 'one' },
    { eventType: 'change', filename: 'one' },
  ]);
  await rename(join(folder, 'one'), join(folder, "two\n'"));
  await until(watcher, 'rename', "two\n'");
  await rm(join(folder, "two\n'"));
  t.deepEqual(await watcher.next(), { done: false, value: { eventType: 'rename', filename: "two\n'" } });
  const waiting = watcher.next();
  t.deepEqual(await watcher.return(), { done: true, value: undefined });
  t.deepEqual(await waiting, { done: true, value: undefined });
  t.deepEqual(await watcher.next(), { done: true, value: undefined });
});

test('a tree tells of folders that come later', async (t) => {
  const agent = await agentByHand(t);
  const folder = await temporaryFolder(t);
  await mkdir(join(folder, 'old'));
  const watcher = new GuestFiles(agent.api).watch(folder, { recursive: true });
  await watcher.ready;
  await writeFile(join(folder, 'old/file'), 'x');
  await until(watcher, 'change', 'old/file');
  await mkdir(join(folder, 'new/inner'), { recursive: true });
  await until(watcher, 'rename', 'new/inner');
  await writeFile(join(folder, 'new/inner/file'), 'x');
  await until(watcher, 'change', 'new/inner/file');
  await watcher.return();
  const before = (await agent.holdings()).descriptors;
  for (let round = 0; round < 5; round += 1) {
    for await (const _ of (() => {
      const again = new GuestFiles(agent.api).watch(folder);
      void again.ready.then(() => writeFile(join(folder, 'again'), 'x'));
      return again;
    })())
      break;
  }
  await new GuestFiles(agent.api).stat(folder);
  const after = (await agent.holdings()).descriptors;
  t.true(after <= before, `${after} descriptors, ${before} before`);
});

test('a watch that cannot be is an error of the guest, and an aborted one is an AbortError', async (t) => {
  const agent = await agentByHand(t);
  const fs = new GuestFiles(agent.api);
  const none = fs.watch('/no/such');
  const error = await t.throwsAsync(none.next(), { instanceOf: GuestFileError });
  t.like(error, { code: 'ENOENT', syscall: 'watch', path: '/no/such' });
  await t.throwsAsync(none.ready, { code: 'ENOENT' });
  t.deepEqual(await none.next(), { done: true, value: undefined });
  const abort = new AbortController();
  const watcher = fs.watch(await temporaryFolder(t), { signal: abort.signal });
  await watcher.ready;
  const waiting = watcher.next();
  abort.abort(new Error('enough'));
  const end = await t.throwsAsync(waiting, { name: 'AbortError' });
  t.like(end?.cause, { message: 'enough' });
  await t.throwsAsync(fs.watch('/', { signal: abort.signal }).next(), { name: 'AbortError' });
});

test('a watch ends with its machine', async (t) => {
  const agent = await agentByHand(t);
  const watcher = new GuestFiles(agent.api).watch(await temporaryFolder(t));
  await watcher.ready;
  const waiting = watcher.next();
  agent.api.close(new MicroVMError('ERR_MACHINE_EXITED', 'The machine was stopped'));
  await t.throwsAsync(waiting, { instanceOf: MicroVMError, code: 'ERR_MACHINE_EXITED' });
});

test('events over the limit are dropped with a warning, or end the watch', async (t) => {
  const agent = await agentByHand(t);
  const fs = new GuestFiles(agent.api);
  const folder = await temporaryFolder(t);
  const warnings: Error[] = [];
  const onWarning = (warning: Error): void => void warnings.push(warning);
  process.on('warning', onWarning);
  t.teardown(() => process.off('warning', onWarning));
  const ignoring = fs.watch(folder, { maxQueue: 2 });
  const throwing = fs.watch(folder, { maxQueue: 2, overflow: 'throw' });
  const seeing = fs.watch(folder);
  await Promise.all([ignoring.ready, throwing.ready, seeing.ready]);
  for (const name of ['a', 'b', 'c', 'last']) await writeFile(join(folder, name), name);
  await until(seeing, 'change', 'last');
  // All three are one connection's, and lines of the others may still be on their way: wait for the end of one.
  const events: unknown[] = [];
  const error = await t.throwsAsync(
    (async () => {
      for await (const event of throwing) events.push(event);
    })(),
    { instanceOf: MicroVMError },
  );
  t.is(error?.code, 'ERR_WATCH_OVERFLOW');
  t.is(events.length, 2);
  t.is((await ignoring.next()).value?.filename, 'a');
  await ignoring.return();
  t.true(warnings.some(({ message }) => message.includes(folder)));
});
