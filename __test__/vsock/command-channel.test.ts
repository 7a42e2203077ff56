import { once } from 'node:events';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { MicroVMError } from '../../src/errors.ts';
import { CommandChannel, type CommandChannelOptions } from '../../src/vsock/command-channel.ts';
import { listenForGuest } from '../../src/vsock/unix.ts';
import { FakeAgent, reply } from '../helpers/fake-agent.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

interface Fixture {
  readonly channel: CommandChannel;
  readonly path: string;
  /** An agent that has been accepted. */
  connect(): Promise<FakeAgent>;
}

async function makeChannel(t: ExecutionContext, options: CommandChannelOptions = {}): Promise<Fixture> {
  const socket = join(await temporaryFolder(t), 'v');
  const channel = new CommandChannel(await listenForGuest(socket, 1024), options);
  t.teardown(() => channel.close());
  const path = `${socket}_1024`;
  const connect = async (): Promise<FakeAgent> => {
    const accepted = channel.accept({ timeoutMs: 10_000 });
    const [agent] = await Promise.all([FakeAgent.ready(path), accepted]);
    return agent;
  };
  return { channel, path, connect };
}

test('an agent that dials before anybody waits is accepted, and accepting again does nothing', async (t) => {
  const { channel, path } = await makeChannel(t);
  const agent = FakeAgent.ready(path);
  t.false(channel.isConnected);
  await channel.accept({ timeoutMs: 10_000 });
  await agent;
  t.true(channel.isConnected);
  await channel.accept({ timeoutMs: 1 });
  t.true(channel.isConnected);
});

test('a command gives its output and exit code', async (t) => {
  const { channel, connect } = await makeChannel(t);
  const agent = await connect();
  const result = channel.run('uname -a');
  t.is(await agent.command(), 'uname -a');
  agent.socket.write(reply('out', 'err', 255));
  const { stdout, stderr, exitCode, durationMs } = await result;
  t.deepEqual([stdout.toString(), stderr.toString(), exitCode], ['out', 'err', 255]);
  t.true(durationMs >= 0);
});

test('calls queue: the next command is sent when the last was answered', async (t) => {
  const { channel, connect } = await makeChannel(t);
  const agent = await connect();
  const results = Promise.all(['a', 'b', 'c'].map((command) => channel.run(command)));
  for (const expected of ['a', 'b', 'c']) {
    t.is(await agent.command(), expected);
    t.is(agent.socket.readableLength, 0);
    agent.socket.write(reply(expected));
  }
  t.deepEqual(
    (await results).map(({ stdout }) => stdout.toString()),
    ['a', 'b', 'c'],
  );
});

test('nobody dials: accept rejects after its timeout', async (t) => {
  const { channel } = await makeChannel(t);
  await t.throwsAsync(channel.accept({ timeoutMs: 20 }), { code: 'ERR_AGENT_NOT_CONNECTED' });
  t.false(channel.isConnected);
});

test('nobody dials: a command rejects after acceptTimeoutMs', async (t) => {
  const { channel } = await makeChannel(t);
  await t.throwsAsync(channel.run('x', { acceptTimeoutMs: 20 }), { code: 'ERR_AGENT_NOT_CONNECTED' });
});

test('aborting the wait for the agent rejects with the reason as cause', async (t) => {
  const { channel } = await makeChannel(t);
  const controller = new AbortController();
  const accepted = channel.accept({ timeoutMs: 10_000, signal: controller.signal });
  const reason = new Error('enough');
  controller.abort(reason);
  const error = await t.throwsAsync(accepted, { instanceOf: MicroVMError, code: 'ERR_ABORTED' });
  t.is(error.cause, reason);
  await t.throwsAsync(channel.accept({ timeoutMs: 10_000, signal: controller.signal }), { code: 'ERR_ABORTED' });
});

test('an agent that hangs up without a word is forgotten, and the next one is accepted', async (t) => {
  const { channel, path } = await makeChannel(t);
  const first = await FakeAgent.dial(path);
  first.socket.destroy();
  const accepted = channel.accept({ timeoutMs: 10_000 });
  await FakeAgent.ready(path);
  await accepted;
  t.true(channel.isConnected);
});

test('a newer connection takes the place of one that waits', async (t) => {
  const { channel, path } = await makeChannel(t);
  const older = await FakeAgent.dial(path);
  const newer = FakeAgent.ready(path);
  await older.closed();
  await channel.accept({ timeoutMs: 10_000 });
  await newer;
  t.true(channel.isConnected);
});

for (const [what, answer] of [
  ['a non-zero exit code', reply('', '', 1)],
  ['output', reply('hello')],
  ['errors', reply('', 'hello')],
  ['garbage', Buffer.concat([reply(), Buffer.from('x')])],
] as const) {
  test(`a probe that is answered with ${what} is a protocol error`, async (t) => {
    const { channel, path } = await makeChannel(t);
    const accepted = channel.accept({ timeoutMs: 10_000 });
    const agent = await FakeAgent.dial(path);
    await agent.command();
    agent.socket.write(answer);
    await t.throwsAsync(accepted, { code: 'ERR_CHANNEL_PROTOCOL' });
    t.false(channel.isConnected);
    await agent.closed();
  });
}

test('a probe that is not answered times out under its own timeout, and commands after it do not', async (t) => {
  const { channel, path, connect } = await makeChannel(t, { probeTimeoutMs: 2_000 });
  const accepted = channel.accept({ timeoutMs: 10_000 });
  const silent = await FakeAgent.dial(path);
  await t.throwsAsync(accepted, { code: 'ERR_CHANNEL_TIMEOUT', message: /probe within 2000 ms/ });
  await silent.closed();
  const agent = await connect();
  const result = channel.run('x');
  await agent.command();
  const probesLater = new Promise((resolve) => setTimeout(resolve, 2_100));
  await probesLater;
  agent.socket.write(reply('late'));
  t.is((await result).stdout.toString(), 'late');
});

test('probing an open channel again leaves it usable', async (t) => {
  const { channel, connect } = await makeChannel(t);
  const agent = await connect();
  await Promise.all([channel.probe(10_000), agent.answerProbe()]);
  t.true(channel.isConnected);
});

test('probing without a connection rejects', async (t) => {
  const { channel } = await makeChannel(t);
  await t.throwsAsync(channel.probe(), { code: 'ERR_CHANNEL_NOT_CONNECTED' });
});

test('a command that runs into its timeout closes the connection, and the next one runs after the agent dialed again', async (t) => {
  const { channel, path, connect } = await makeChannel(t);
  const agent = await connect();
  const late = channel.run('sleep 9', { timeoutMs: 30 });
  await agent.command();
  await t.throwsAsync(late, { code: 'ERR_EXEC_TIMEOUT', message: /30 ms/ });
  t.false(channel.isConnected);
  await agent.closed();

  const next = channel.run('echo');
  const again = await FakeAgent.ready(path);
  t.is(await again.command(), 'echo');
  again.socket.write(reply('ok'));
  t.is((await next).stdout.toString(), 'ok');
});

test('a timeout also ends a reply that drips', async (t) => {
  const { channel, connect } = await makeChannel(t);
  const agent = await connect();
  const late = channel.run('x', { timeoutMs: 50 });
  await agent.command();
  agent.socket.write(Buffer.from([0, 0]));
  await t.throwsAsync(late, { code: 'ERR_EXEC_TIMEOUT' });
});

test('a timeout longer than a timer can hold is none', async (t) => {
  const { channel, path } = await makeChannel(t);
  const accepted = channel.accept({ timeoutMs: Infinity });
  const agent = await FakeAgent.ready(path);
  await accepted;
  const result = channel.run('x', { timeoutMs: Infinity });
  await agent.command();
  await new Promise((resolve) => setTimeout(resolve, 20));
  agent.socket.write(reply('ok'));
  t.is((await result).stdout.toString(), 'ok');
});

test('a pause inside a reply times out, a long wait for its first byte does not', async (t) => {
  const { channel, connect } = await makeChannel(t, { gapTimeoutMs: 500 });
  const agent = await connect();
  const first = channel.run('slow');
  await agent.command();
  const longerThanTheGap = new Promise((resolve) => setTimeout(resolve, 700));
  await longerThanTheGap;
  agent.socket.write(reply('done'));
  t.is((await first).stdout.toString(), 'done');

  const second = channel.run('stuck');
  await agent.command();
  agent.socket.write(reply('done').subarray(0, 5));
  await t.throwsAsync(second, { code: 'ERR_CHANNEL_TIMEOUT', message: /500 ms inside a reply/ });
  await agent.closed();
});

test('aborting a running command closes the connection at once', async (t) => {
  const { channel, connect } = await makeChannel(t);
  const agent = await connect();
  const controller = new AbortController();
  const result = channel.run('x', { signal: controller.signal });
  await agent.command();
  controller.abort();
  const error = await t.throwsAsync(result, { instanceOf: MicroVMError, code: 'ERR_EXEC_ABORTED' });
  t.is(error.cause, controller.signal.reason);
  await agent.closed();
});

test('aborting a command that waits for its turn disturbs nobody', async (t) => {
  const { channel, connect } = await makeChannel(t);
  const agent = await connect();
  const running = channel.run('a');
  const controller = new AbortController();
  const waiting = channel.run('b', { signal: controller.signal });
  const last = channel.run('c');
  controller.abort();
  await t.throwsAsync(waiting, { code: 'ERR_EXEC_ABORTED' });
  t.is(await agent.command(), 'a');
  agent.socket.write(reply('a'));
  t.is((await running).stdout.toString(), 'a');
  t.is(await agent.command(), 'c');
  agent.socket.write(reply('c'));
  t.is((await last).stdout.toString(), 'c');
  await t.throwsAsync(channel.run('d', { signal: controller.signal }), { code: 'ERR_EXEC_ABORTED' });
  t.true(channel.isConnected);
});

test('a guest that hangs up after any number of bytes of its reply gives a short read', async (t) => {
  const { channel, connect } = await makeChannel(t);
  const whole = reply('output', 'errors', 3);
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: whole.length - 1 }), async (length) => {
      const agent = await connect();
      const result = channel.run('x');
      await agent.command();
      agent.socket.end(whole.subarray(0, length));
      await t.throwsAsync(result, { code: 'ERR_CHANNEL_SHORT_READ', message: new RegExp(` ${length} bytes`) });
      t.false(channel.isConnected);
    }),
    { numRuns: whole.length * 2 },
  );
});

test('a guest that resets the connection while a command runs gives a short read', async (t) => {
  const { channel, connect } = await makeChannel(t);
  const agent = await connect();
  const result = channel.run('x');
  // The command, which nobody has read, makes the kernel answer the close with a reset.
  await once(agent.socket, 'readable');
  agent.socket.destroy();
  await t.throwsAsync(result, { code: 'ERR_CHANNEL_SHORT_READ' });
});

test('a guest that announces 4 GiB gets its connection closed', async (t) => {
  const { channel, connect } = await makeChannel(t);
  const agent = await connect();
  const result = channel.run('x');
  await agent.command();
  agent.socket.write(Buffer.from([0xff, 0xff, 0xff, 0xff]));
  await t.throwsAsync(result, { code: 'ERR_CHANNEL_FRAME_TOO_LARGE' });
  await agent.closed();
  t.false(channel.isConnected);
});

test('bytes that nobody asked for close the connection', async (t) => {
  const { channel, connect } = await makeChannel(t);
  const agent = await connect();
  agent.socket.write('surprise');
  await agent.closed();
  t.false(channel.isConnected);
});

test('a command over the limit is refused before anything is sent', async (t) => {
  const { channel, connect } = await makeChannel(t, { maxFrameBytes: 8 });
  const agent = await connect();
  await t.throwsAsync(channel.run('123456789'), { code: 'ERR_COMMAND_TOO_LARGE' });
  t.true(channel.isConnected);
  const result = channel.run('12345678');
  t.is(await agent.command(), '12345678');
  agent.socket.write(reply());
  await result;
});

test('a guest that does not take a command times out', async (t) => {
  const { channel, connect } = await makeChannel(t, { sendTimeoutMs: 50 });
  await connect();
  await t.throwsAsync(channel.run(Buffer.alloc(8 * 2 ** 20)), {
    code: 'ERR_CHANNEL_TIMEOUT',
    message: /take the command/,
  });
  t.false(channel.isConnected);
});

test('a guest that hangs up while a large command is written takes no more bytes', async (t) => {
  const { channel, connect } = await makeChannel(t);
  const agent = await connect();
  const result = channel.run(Buffer.alloc(8 * 2 ** 20));
  agent.socket.destroy();
  await t.throwsAsync(result, { code: 'ERR_CHANNEL_WRITE_ZERO' });
});

test('large outputs arrive whole', async (t) => {
  const { channel, connect } = await makeChannel(t);
  const agent = await connect();
  const output = Buffer.alloc(16 * 2 ** 20, 'abcdefg');
  const result = channel.run('x');
  await agent.command();
  agent.socket.write(reply(output, output));
  const { stdout, stderr } = await result;
  t.true(stdout.equals(output));
  t.true(stderr.equals(output));
});

test('closing rejects what runs, what waits and what comes later, with the reason', async (t) => {
  const { channel, connect } = await makeChannel(t);
  const agent = await connect();
  const reason = new MicroVMError('ERR_MACHINE_EXITED', 'It is over');
  const calls = [channel.run('a'), channel.run('b'), channel.accept({ timeoutMs: 1 })];
  await agent.command();
  await channel.close(reason);
  const results = await Promise.allSettled([...calls, channel.run('c')]);
  t.deepEqual(
    results.map((result) => (result.status === 'rejected' ? result.reason : result.status)),
    [reason, reason, 'fulfilled', reason],
  );
  await agent.closed();
});

test('closing ends a wait for the agent', async (t) => {
  const { channel } = await makeChannel(t);
  const accepted = channel.accept({ timeoutMs: 10_000 });
  await channel.close();
  await t.throwsAsync(accepted, { code: 'ERR_CHANNEL_NOT_CONNECTED' });
});

test('powering off sends the reserved command and closes the connection after the answer', async (t) => {
  const { channel, connect } = await makeChannel(t);
  const agent = await connect();
  const asked = channel.powerOff({ timeoutMs: 10_000 });
  t.is(await agent.command(), '\0poweroff');
  agent.socket.end(reply());
  await asked;
  await agent.closed();
  await t.throwsAsync(channel.run('x'), { code: 'ERR_MACHINE_EXITED' });
});

test('powering off ends the running command and waits for the agent to dial again', async (t) => {
  const { channel, path, connect } = await makeChannel(t);
  const agent = await connect();
  const running = channel.run('sleep');
  await agent.command();
  const asked = channel.powerOff({ timeoutMs: 10_000 });
  await t.throwsAsync(running, { code: 'ERR_MACHINE_EXITED' });
  await agent.closed();
  const again = await FakeAgent.ready(path);
  t.is(await again.command(), '\0poweroff');
  again.socket.destroy();
  await asked;
});

test('powering off takes over from a command that waits for the agent', async (t) => {
  const { channel, path } = await makeChannel(t);
  const waiting = channel.run('x');
  const asked = channel.powerOff({ timeoutMs: 10_000 });
  await t.throwsAsync(waiting, { code: 'ERR_MACHINE_EXITED' });
  const agent = await FakeAgent.ready(path);
  await agent.command();
  agent.socket.end(reply());
  await t.notThrowsAsync(asked);
});
