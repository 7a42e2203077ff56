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
  await t.throwsAsync(Promise.resolve(endless), { code: 'ERR_EXEC_ABORTED' });
});

test('what the agent refuses is told: a new size where there is no terminal, and one that has none', async (t) => {
  const agent = await agentByHand(t);
  const sleep = agent.exec('sleep', ['1000'], { reject: false });
  await t.throwsAsync(sleep.resize({ cols: 80, rows: 24 }), { code: 'ERR_AGENT_REFUSED', message: /no terminal/ });
  t.true(await sleep.kill('SIGKILL'));
  await sleep;
  t.false(await sleep.resize({ cols: 80, rows: 24 }));
  for (const pty of [{ cols: 0, rows: 24 }, { cols: 80 }, 'big']) {
    await t.throwsAsync(Promise.resolve(agent.exec('true', [], { pty: pty as never })), {
      code: 'ERR_INVALID_OPTIONS',
    });
  }
});

test('a long shell line is no argument, and a long argument is told', async (t) => {
  const agent = await agentByHand(t);
  const long = `echo ${'x'.repeat(300_000)} | wc -c`;
  t.is(String((await agent.exec(long, [], { shell: true })).stdout).trim(), '300001');
  t.is((await agent.exec('echo', ['x'.repeat(300_000)], { reject: false })).exitCode, 126);
});
