// A command as a process, by the real agent on this machine: what takes many rounds, and what needs no guest.

import { getEventListeners } from 'node:events';
import { readFile } from 'node:fs/promises';
import test from 'ava';

import { MicroVMError } from '../../src/errors.ts';
import { AgentApi } from '../../src/guest-api/agent-api.ts';
import { startProcess } from '../../src/vm/run-process.ts';
import { agentByHand, machineOf } from '../helpers/agent-by-hand.ts';

test('1000 in a row and 200 at once leave nothing with the agent, nor on a signal that outlives them', async (t) => {
  const agent = await agentByHand(t);
  const { signal } = new AbortController();
  await Promise.all(Array.from({ length: 20 }, () => agent.exec('true')));
  const before = await agent.holdings();
  for (let index = 0; index < 1000; index += 1) await agent.exec('true', [], { signal });
  const results = await Promise.all(
    Array.from({ length: 200 }, (_, index) => agent.exec('echo', [String(index)], { signal })),
  );
  t.true(results.every(({ stdout }, index) => stdout === `${index}\n`));
  t.deepEqual(await agent.holdings(), before);
  t.deepEqual(before.children, []);
  t.is(agent.connections.length, 1, 'one connection carries all');
  t.deepEqual(getEventListeners(signal, 'abort'), []);
});

test('the final newline is cut off the result where that is asked for, and off nothing else', async (t) => {
  const agent = await agentByHand(t);
  const command = agent.exec('echo out; echo err >&2', [], { shell: true, stripFinalNewline: true });
  t.deepEqual(Buffer.concat(await command.stdout.toArray()), Buffer.from('out\n'));
  t.like(await command, { stdout: 'out', stderr: 'err' });
});

test('a reader that stops costs the agent a bounded number of bytes, and holds up nobody else', async (t) => {
  const agent = await agentByHand(t);
  const residentKib = async (): Promise<number> =>
    Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${agent.pid}/status`, 'utf8'))?.[1]);
  await agent.exec('true');
  const before = await residentKib();
  const stuck = Array.from({ length: 20 }, () => {
    const process = agent.exec('cat /dev/zero', [], { shell: true, buffer: false });
    process.catch(() => {});
    process.stdin.write(Buffer.alloc(1024 * 1024));
    return { process, stdout: process.stdout };
  });
  await Promise.all(stuck.map(({ process }) => process.pid));
  t.is((await agent.exec('echo', ['through'])).stdout, 'through\n');
  const grown = (await residentKib()) - before;
  t.true(grown < 20 * 1024, `${grown} KiB more for 20 that are stuck`);
  await Promise.all(stuck.map(({ process }) => process.kill('SIGKILL')));
  for (const { process, stdout } of stuck) {
    stdout.resume();
    await t.throwsAsync(Promise.resolve(process), { code: 'ERR_EXEC_FAILED', message: /SIGKILL/ });
  }
});

test('a connection that breaks ends its commands, and the next command makes another', async (t) => {
  const agent = await agentByHand(t);
  const running = agent.exec('sleep 1000 & echo $!; wait', [], { shell: true });
  const { value: child } = await running[Symbol.asyncIterator]().next();
  agent.connections[0]?.destroy();
  await t.throwsAsync(Promise.resolve(running), { instanceOf: MicroVMError, code: 'ERR_AGENT_LOST' });
  t.is((await agent.exec('echo', ['again'])).stdout, 'again\n');
  await t.throwsAsync(Promise.resolve(agent.exec('kill', ['-0', String(child)])), { code: 'ERR_EXEC_FAILED' });
  t.is(agent.connections.length, 2);
});

test('a guest without the API takes commands by the channel, and says what needs the API', async (t) => {
  const refused = new MicroVMError('ERR_VSOCK_REFUSED', 'Nothing listens');
  const api = new AgentApi({ dial: () => Promise.reject(refused) });
  const vm = machineOf(api);
  const reply = { stdout: Buffer.from('by the channel\n'), stderr: Buffer.alloc(0), exitCode: 0, durationMs: 1 };
  Object.assign(vm, { channel: { run: () => Promise.resolve(reply) } });
  t.like(await startProcess(vm, 'true', [], {}), { stdout: 'by the channel\n', exitCode: 0 });
  const stripped = startProcess(vm, 'true', [], { stripFinalNewline: true });
  t.deepEqual(await stripped.stdout.toArray(), [reply.stdout]);
  t.is((await stripped).stdout, 'by the channel');
  await t.throwsAsync(Promise.resolve(startProcess(vm, 'true', [], { user: 'ann' })), {
    code: 'ERR_NOT_SUPPORTED',
    message: /user/,
  });
});

test('a line without an end is not gathered beyond its limit', async (t) => {
  const agent = await agentByHand(t);
  const endless = agent.exec('cat', ['/dev/zero'], { buffer: false, maxBuffer: 100_000 });
  await t.throwsAsync(endless[Symbol.asyncIterator]().next(), { code: 'ERR_EXEC_MAX_BUFFER' });
  const error = await t.throwsAsync(Promise.resolve(endless), { instanceOf: MicroVMError });
  t.like(error, { code: 'ERR_EXEC_MAX_BUFFER', command: 'cat /dev/zero' });
});

test('what the agent refuses is told: a new size where there is no terminal, and one that has none', async (t) => {
  const agent = await agentByHand(t);
  const sleep = agent.exec('sleep', ['1000'], { reject: false });
  await t.throwsAsync(sleep.resize({ cols: 80, rows: 24 }), { code: 'ERR_AGENT_REFUSED', message: /no terminal/ });
  t.true(await sleep.kill('SIGKILL'));
  await sleep;
  t.false(await sleep.resize({ cols: 80, rows: 24 }));
  for (const pty of [{ cols: 0, rows: 24 }, { cols: 80, rows: Number.NaN }, { cols: 80 }, 'big']) {
    await t.throwsAsync(Promise.resolve(agent.exec('true', [], { pty: pty as never })), {
      code: 'ERR_INVALID_OPTIONS',
    });
    await t.throwsAsync(sleep.resize(pty as never), { code: 'ERR_INVALID_OPTIONS' });
  }
});

test('a long shell line is no argument, and a long argument is told', async (t) => {
  const agent = await agentByHand(t);
  const long = `echo ${'x'.repeat(300_000)} | wc -c`;
  t.is(String((await agent.exec(long, [], { shell: true })).stdout).trim(), '300001');
  t.is((await agent.exec('echo', ['x'.repeat(300_000)], { reject: false })).exitCode, 126);
});

test('a slow reader gets all that a failing command wrote, and hears of the failure by awaiting it', async (t) => {
  const agent = await agentByHand(t);
  const command = agent.exec('for i in 1 2 3 4; do echo $i; sleep 0.05; done; exit 3', [], { shell: true });
  const lines: string[] = [];
  const reading = (async () => {
    for await (const line of command) {
      // Not before all of it has come.
      await command.catch(() => {});
      lines.push(line);
    }
  })();
  await t.throwsAsync(reading, { code: 'ERR_EXEC_FAILED', message: /exit code 3/ });
  t.deepEqual(lines, ['1', '2', '3', '4']);

  const other = agent.exec('seq 5; exit 1', [], { shell: true });
  t.is(Buffer.concat(await other.stdout.toArray()).toString(), '1\n2\n3\n4\n5\n');
  await t.throwsAsync(Promise.resolve(other), { code: 'ERR_EXEC_FAILED' });
});

test('what has come of a command is kept for a slow reader when the connection breaks behind its end', async (t) => {
  const agent = await agentByHand(t);
  const command = agent.exec('head', ['-c', '500000', '/dev/zero'], { buffer: false });
  const { stdout } = command;
  t.is((await command).exitCode, 0);
  agent.connections[0]?.destroy();
  t.is(Buffer.concat(await stdout.toArray()).length, 500_000);
});

test('leaving the lines early is a result where failures are no errors', async (t) => {
  const agent = await agentByHand(t);
  const command = agent.exec('yes', [], { reject: false, buffer: false });
  for await (const line of command) {
    t.is(line, 'y');
    break;
  }
  t.like(await command, { exitCode: undefined, isCanceled: true, timedOut: false });
});

test('an abort at any moment of the start ends the command', async (t) => {
  const agent = await agentByHand(t);
  await agent.exec('true');
  for (let turns = 0; turns < 40; turns += 1) {
    const abort = new AbortController();
    const command = agent.exec('sleep', ['1000'], { signal: abort.signal });
    for (let turn = 0; turn < turns; turn += 1) await undefined;
    abort.abort();
    await t.throwsAsync(Promise.resolve(command), { code: 'ERR_EXEC_ABORTED' });
  }
});

test('with a shell, the list is arguments behind the line, which no shell reads', async (t) => {
  const agent = await agentByHand(t);
  const hostile = ['$(echo no)', "it's; exit 1", '*', ''];
  const { stdout } = await agent.exec('printf "<%s>"', hostile, { shell: true });
  t.is(stdout, hostile.map((text) => `<${text}>`).join(''));
});

test('a program on a terminal knows its kind, unless the caller says another', async (t) => {
  const agent = await agentByHand(t);
  const kind = async (options: object): Promise<unknown> =>
    (await agent.exec('echo $TERM', [], { shell: true, stripFinalNewline: true, ...options })).stdout;
  const pty = { cols: 80, rows: 24 };
  t.is(await kind({ pty }), 'xterm');
  t.is(await kind({ pty, env: { TERM: 'vt100' } }), 'vt100');
  t.is(await kind({}), '');
});

test('signal 0 asks whether a command is there', async (t) => {
  const agent = await agentByHand(t);
  const sleep = agent.exec('sleep', ['1000'], { reject: false });
  t.true(await sleep.kill(0));
  t.true(await sleep.kill('SIGKILL'));
  await sleep;
  t.false(await sleep.kill(0));
  await t.throwsAsync(sleep.kill(-1), { code: 'ERR_INVALID_OPTIONS' });
});

test('the Web stream is one, however often it is asked for', async (t) => {
  const agent = await agentByHand(t);
  const command = agent.exec('echo', ['once']);
  const reader = command.readable.getReader();
  t.true(command.readable.locked);
  const { value } = await reader.read();
  t.is(Buffer.from(value ?? []).toString(), 'once\n');
  await command;
});

test('a detached command that is ended for another reason than an abort does not live on', async (t) => {
  const agent = await agentByHand(t);
  await agent.exec('true');
  const loud = agent.exec('yes', [], { detached: true, maxBuffer: 1000 });
  await t.throwsAsync(Promise.resolve(loud), { code: 'ERR_EXEC_MAX_BUFFER' });
  const left = agent.exec('yes', [], { detached: true, buffer: false });
  for await (const line of left) if (line === 'y') break;
  await t.throwsAsync(Promise.resolve(left), { code: 'ERR_EXEC_ABORTED' });
  t.deepEqual((await agent.holdings()).children, []);
});
