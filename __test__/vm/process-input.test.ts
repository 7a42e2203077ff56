// Where a command's input comes from, by the real agent on this machine.

import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { Readable } from 'node:stream';
import test from 'ava';

import { MicroVMError } from '../../src/errors.ts';
import { agentByHand } from '../helpers/agent-by-hand.ts';

test('a stream that fails before the command begins is ERR_EXEC_STDIN', async (t) => {
  const agent = await agentByHand(t);
  // The first command has to connect first, by when the file is known to be missing.
  const first = agent.exec('cat', [], { stdin: createReadStream('/no/such/file') });
  const error = await t.throwsAsync(Promise.resolve(first), { instanceOf: MicroVMError, code: 'ERR_EXEC_STDIN' });
  t.like(error?.cause, { code: 'ENOENT' });

  const broken = createReadStream('/no/such/file');
  await t.throwsAsync(once(broken, 'end'), { code: 'ENOENT' });
  await t.throwsAsync(Promise.resolve(agent.exec('cat', [], { stdin: broken })), { code: 'ERR_EXEC_STDIN' });
  const closed = new Readable({ read() {} });
  closed.destroy();
  await t.throwsAsync(Promise.resolve(agent.exec('cat', [], { stdin: closed })), { code: 'ERR_EXEC_STDIN' });
});

test('items that are neither text nor bytes are ERR_EXEC_STDIN', async (t) => {
  const agent = await agentByHand(t);
  for (const stdin of [['a', 7], Readable.from([{ a: 1 }]), new Set([null])]) {
    const error = await t.throwsAsync(Promise.resolve(agent.exec('cat', [], { stdin: stdin as never })), {
      code: 'ERR_EXEC_STDIN',
    });
    t.regex(String(error?.cause), /neither text nor bytes/);
  }
});

test('an iterable is let go when the command has ended, and what it says then is no error', async (t) => {
  const agent = await agentByHand(t);
  const letGo: string[] = [];
  let fail: (reason: Error) => void = () => {};
  async function* endless(): AsyncGenerator<string> {
    try {
      for (;;) yield 'x'.repeat(100_000);
    } finally {
      letGo.push('generator');
    }
  }
  t.is((await agent.exec('head', ['-c', '1'], { stdin: endless() })).stdout, 'x');
  const web = new ReadableStream<string>({
    pull: (controller) => controller.enqueue('y'.repeat(100_000)),
    cancel: () => void letGo.push('Web stream'),
  });
  t.is((await agent.exec('head', ['-c', '1'], { stdin: web as never })).stdout, 'y');
  const late = {
    [Symbol.asyncIterator]: () => ({
      next: () =>
        new Promise<never>((_, reject) => {
          fail = reject;
        }),
    }),
  };
  t.is((await agent.exec('true', [], { stdin: late })).exitCode, 0);
  fail(new Error('too late'));
  await new Promise((resolve) => setImmediate(resolve));
  t.deepEqual(letGo.toSorted(), ['Web stream', 'generator']);
  t.false(web.locked);
});

test('a stream that was given stays the one of who gave it', async (t) => {
  const agent = await agentByHand(t);
  const own = new Readable({ read() {} });
  own.push('one line\nand more\n');
  t.is((await agent.exec('head', ['-n', '1'], { stdin: own })).stdout, 'one line\n');
  t.false(own.destroyed);
  own.destroy();
});

test('the options say what the input is, whether or not the stream is looked at', async (t) => {
  const agent = await agentByHand(t);
  for (const [options, expected] of [
    [{ input: 'given' }, 'given'],
    [{ input: '' }, ''],
    [{ stdin: ['a', 'b'] }, 'ab'],
    [{ stdin: 'ignore' }, ''],
  ] as const) {
    const command = agent.exec('cat', [], options);
    command.stdin.on('error', () => {});
    t.is((await command).stdout, expected);
  }
});
