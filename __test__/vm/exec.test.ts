// exec on a machine whose commands run here.

import { execFile } from 'node:child_process';
import { getEventListeners } from 'node:events';
import test from 'ava';

import { MicroVMError } from '../../src/errors.ts';
import type { CommandChannel } from '../../src/vsock/command-channel.ts';
import { exec, prepareCommand } from '../../src/vm/exec.ts';
import { fakeMachine } from '../helpers/fake-machine.ts';

/** A channel that has this host's shell run the line. */
const here: Pick<CommandChannel, 'run'> = {
  run: (line) =>
    new Promise((resolve) => {
      const child = execFile('/bin/sh', ['-c', String(line)], { encoding: 'buffer' }, (_error, stdout, stderr) =>
        resolve({ stdout, stderr, exitCode: child.exitCode ?? -1, durationMs: 5 }),
      );
    }),
};

/** A channel without a reply. */
const failing = (reason: Error): Pick<CommandChannel, 'run'> => ({ run: () => Promise.reject(reason) });

test('a command whose machine ends is told why, with the console', async (t) => {
  const fake = fakeMachine({
    run: () => {
      setImmediate(() => fake.end({ reason: 'failed', detail: 'QEMU ended with signal 9' }));
      return Promise.reject(new MicroVMError('ERR_CHANNEL_SHORT_READ', 'The connection was closed'));
    },
  });
  const error = await t.throwsAsync(exec(fake.vm, 'true', [], {}), { instanceOf: MicroVMError });
  t.is(error.code, 'ERR_MACHINE_FAILED');
  t.is(error.message, 'The machine failed while a command ran or waited: QEMU ended with signal 9');
  t.is(error.consoleTail, 'last words');
  t.is(error.command, 'true');
});

test('a channel that breaks while the machine runs on keeps its own error', async (t) => {
  const { vm } = fakeMachine({
    run: () => Promise.reject(new MicroVMError('ERR_CHANNEL_PROTOCOL', 'Garbage')),
  });
  await t.throwsAsync(exec(vm, 'true', [], {}), { code: 'ERR_CHANNEL_PROTOCOL' });
});

test('the result of a command that failed is in the error', async (t) => {
  const { vm } = fakeMachine({
    run: () => Promise.resolve({ stdout: Buffer.from('out'), stderr: Buffer.from('err'), exitCode: 3, durationMs: 5 }),
  });
  const error = await t.throwsAsync(exec(vm, 'sh', ['-c', 'exit 3'], {}), { instanceOf: MicroVMError });
  t.like(error, { code: 'ERR_EXEC_FAILED', stdout: 'out', stderr: 'err', exitCode: 3, timedOut: false, durationMs: 5 });
});

for (const options of [
  {},
  { reject: false },
  { reject: false, encoding: 'buffer' },
  { input: 'x'.repeat(70_000) },
] as const) {
  test(`a working folder that is not there is an error of its own, with ${Object.keys(options).join(' and ') || 'no options'}`, async (t) => {
    const error = await t.throwsAsync(exec(fakeMachine(here).vm, 'cat', [], { cwd: '/no/such', ...options }), {
      instanceOf: MicroVMError,
      code: 'ERR_EXEC_CWD',
    });
    t.regex(error.message, /cd: .*\/no\/such/);
    t.regex(error.stderr ?? '', /cd: .*\/no\/such\n/);
    t.notRegex(`${error.stderr}${error.message}`, /microvm-cwd/);
    t.is(error.exitCode, 125);
  });
}

test('a command in a working folder that ends with the same code is a command that failed', async (t) => {
  const { exitCode } = await exec(fakeMachine(here).vm, 'exit 125', [], { cwd: '/', shell: true, reject: false });
  t.is(exitCode, 125);
});

test('all that is wrong with a command is told at once, whichever part checks it', (t) => {
  const error = t.throws(
    () => prepareCommand('', [5 as never], { timeout: 0, cwd: '', env: { 'A B': 'x' }, timeuot: 1 } as object),
    { instanceOf: MicroVMError, code: 'ERR_INVALID_OPTIONS' },
  );
  t.deepEqual(error.problems?.map(({ path }) => path).toSorted(), [
    'args[0]',
    'cwd',
    'env["A B"]',
    'file',
    'timeout',
    'timeuot',
  ]);
});

for (const options of [null, 'text', 7, { env: null }, { env: 'A=b' }, { env: ['A=b'] }]) {
  test(`options ${JSON.stringify(options)} are refused like any others`, async (t) => {
    const { vm } = fakeMachine(failing(new Error('must not be called')));
    await t.throwsAsync(exec(vm, 'true', [], options as object), { code: 'ERR_INVALID_OPTIONS' });
  });
}

test("a command's environment is the machine's with the call's over it, which may take variables away", (t) => {
  const { line } = prepareCommand('x', [], { env: { B: 'call', C: undefined } }, { A: 'vm', B: 'vm', C: 'vm' });
  t.is(line, 'export A=vm B=call\nexec x');
});

test('the wait for its turn is no part of how long a command ran', async (t) => {
  const timedOut = new MicroVMError('ERR_EXEC_TIMEOUT', 'The command did not end');
  const neverSent = await t.throwsAsync(exec(fakeMachine(failing(timedOut)).vm, 'true', [], {}), {
    instanceOf: MicroVMError,
  });
  t.is(neverSent.durationMs, 0);

  let waitedMs = 0;
  const { vm } = fakeMachine({
    run: async (_line, { onSend } = {}) => {
      const asked = performance.now();
      await new Promise((resolve) => setTimeout(resolve, 50));
      waitedMs = performance.now() - asked;
      onSend?.();
      throw timedOut;
    },
  });
  const sent = await t.throwsAsync(exec(vm, 'true', [], {}), { instanceOf: MicroVMError });
  t.true((sent.durationMs ?? Infinity) < waitedMs);
});

test('commands leave nothing on a signal that outlives them', async (t) => {
  const { vm } = fakeMachine(here);
  const { signal } = new AbortController();
  await Promise.all(Array.from({ length: 3 }, () => exec(vm, 'true', [], { signal })));
  t.deepEqual([getEventListeners(vm.ended, 'abort'), getEventListeners(signal, 'abort')], [[], []]);
});

test("what aborts a command is the caller's signal, with its reason, or the machine's end", async (t) => {
  const abort = new AbortController();
  let seen: AbortSignal | undefined;
  const { vm } = fakeMachine({
    run: (_line, { signal } = {}) => {
      seen = signal;
      abort.abort(new Error('changed my mind'));
      return Promise.reject(new MicroVMError('ERR_EXEC_ABORTED', 'The command was aborted', { cause: signal?.reason }));
    },
  });
  const error = await t.throwsAsync(exec(vm, 'true', [], { signal: abort.signal }), { code: 'ERR_EXEC_ABORTED' });
  t.is(seen?.reason, abort.signal.reason);
  t.is(error.cause, abort.signal.reason);
});

test('who wants no rejection gets a timeout and an abort as a result, and other ends as an error', async (t) => {
  const end = async (code: 'ERR_EXEC_TIMEOUT' | 'ERR_EXEC_ABORTED' | 'ERR_CHANNEL_PROTOCOL') =>
    exec(fakeMachine(failing(new MicroVMError(code, 'It ended'))).vm, 'true', [], { reject: false });
  const neither = { exitCode: undefined, signal: undefined, timedOut: false, isCanceled: false };
  t.like(await end('ERR_EXEC_TIMEOUT'), { ...neither, timedOut: true });
  t.like(await end('ERR_EXEC_ABORTED'), { ...neither, isCanceled: true });
  await t.throwsAsync(end('ERR_CHANNEL_PROTOCOL'), { code: 'ERR_CHANNEL_PROTOCOL' });
});
