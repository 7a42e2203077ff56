import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import test from 'ava';

import { CleanUpStack } from '../../src/vm/cleanup.ts';

const none = (): void => {};

test('steps are undone newest first, each once', async (t) => {
  const done: number[] = [];
  const stack = new CleanUpStack();
  for (const step of [1, 2, 3]) stack.add({ run: async () => done.push(step), sync: none });
  await Promise.all([stack.run(), stack.run()]);
  t.deepEqual(done, [3, 2, 1]);
});

test('a step that fails does not keep the others from being undone', async (t) => {
  const done: number[] = [];
  const stack = new CleanUpStack();
  stack.add({ run: async () => done.push(1), sync: none });
  stack.add({ run: () => Promise.reject(new Error('stuck')), sync: none });
  stack.add({ run: async () => done.push(3), sync: none });
  await t.throwsAsync(stack.run(), { message: 'stuck' });
  t.deepEqual(done, [3, 1]);
});

test('process.exit() undoes what is left, newest first, and keeps the exit code', async (t) => {
  const program = `
    import { writeSync } from 'node:fs';
    import { CleanUpStack } from ${JSON.stringify(new URL('../../src/vm/cleanup.ts', import.meta.url).href)};
    const stack = new CleanUpStack();
    stack.add({ run: async () => {}, sync: () => writeSync(1, 'folder ') });
    stack.add({ run: async () => {}, sync: () => { throw new Error('stuck') } });
    stack.add({ run: async () => {}, sync: () => writeSync(1, 'machine ') });
    const undone = new CleanUpStack();
    undone.add({ run: async () => {}, sync: () => writeSync(1, 'never ') });
    await undone.run();
    process.exit(7);`;
  const error = await t.throwsAsync<Error & { code: number; stdout: string }>(
    promisify(execFile)(process.execPath, ['--input-type=module', '-e', program]),
  );
  t.is(error.code, 7);
  t.is(error.stdout, 'machine folder ');
});

test('process.exit() while steps are being undone undoes the one under way and the rest', async (t) => {
  const program = `
    import { writeSync } from 'node:fs';
    import { CleanUpStack } from ${JSON.stringify(new URL('../../src/vm/cleanup.ts', import.meta.url).href)};
    const stack = new CleanUpStack();
    stack.add({ run: async () => {}, sync: () => writeSync(1, 'folder ') });
    stack.add({ run: async () => process.exit(7), sync: () => writeSync(1, 'machine ') });
    stack.add({ run: async () => {}, sync: () => writeSync(1, 'never ') });
    await stack.run();`;
  const error = await t.throwsAsync<Error & { code: number; stdout: string }>(
    promisify(execFile)(process.execPath, ['--input-type=module', '-e', program]),
  );
  t.is(error.code, 7);
  t.is(error.stdout, 'machine folder ');
});
