// An agent that speaks its API wrongly, in every way: each request comes to its end, with a code, and costs little.

import { once } from 'node:events';
import type { ServerHttp2Stream } from 'node:http2';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';

import { MicroVMError } from '../../src/errors.ts';
import { AgentApi, type AgentApiOptions } from '../../src/guest-api/agent-api.ts';
import type { ExecOptions } from '../../src/vm/exec-options.ts';
import type { GuestProcess } from '../../src/vm/guest-process.ts';
import { startProcess } from '../../src/vm/run-process.ts';
import { machineOf, transportTo } from '../helpers/agent-by-hand.ts';
import { hostileAgent } from '../helpers/hostile-agent.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

type Exec = (options?: ExecOptions) => GuestProcess<string | Buffer>;

/** For agents whose silence is the point. */
const SHORT = { answerTimeoutMs: 300, connectTimeoutMs: 300 };
/** For those that are to be found out before any time is over, on a busy machine too. */
const LONG = { answerTimeoutMs: 60_000, connectTimeoutMs: 60_000 };
const HEAD = { ':status': 200, process: '1', pid: '42' };

/** An agent whose answers the test decides. */
async function http2Agent(
  t: ExecutionContext,
  answer: (stream: ServerHttp2Stream) => void,
  limits = LONG,
): Promise<Exec> {
  return execOn(t, await hostileAgent(t, answer), limits);
}

/** An agent that speaks no HTTP/2, or only some bytes of it. */
async function rawAgent(t: ExecutionContext, speak: (socket: Socket) => void, limits = SHORT): Promise<Exec> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).resume();
    speak(socket);
  });
  const path = join(await temporaryFolder(t), 'api');
  server.listen(path);
  await once(server, 'listening');
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return execOn(t, path, limits);
}

function execOn(t: ExecutionContext, path: string, limits: AgentApiOptions): Exec {
  const api = new AgentApi(transportTo(path), limits);
  t.teardown(() => api.close());
  const vm = machineOf(api);
  // The machine is said to have ended, so that nobody waits for its last words.
  Object.assign(vm, { exited: Promise.resolve({ reason: 'stopped' }) });
  return (options = {}) => startProcess(vm, 'true', [], options);
}

const code = (t: ExecutionContext, process: PromiseLike<unknown>): Promise<string> =>
  t.throwsAsync(Promise.resolve(process), { instanceOf: MicroVMError }).then((error) => error?.code ?? '');

for (const [what, expected, answer] of [
  ['says nothing at all', 'ERR_AGENT_TIMEOUT', () => {}],
  ['ends without a status', 'ERR_AGENT_PROTOCOL', (stream) => void (stream.respond(HEAD), stream.end())],
  ['resets the stream', 'ERR_AGENT_LOST|ERR_AGENT_PROTOCOL', (stream) => void (stream.respond(HEAD), stream.close(2))],
  [
    'answers with an error without a reason',
    'ERR_AGENT_PROTOCOL',
    (stream) => stream.respond({ ':status': 500 }, { endStream: true }),
  ],
  [
    'answers with an endless reason',
    'ERR_AGENT_PROTOCOL',
    (stream) => {
      stream.respond({ ':status': 422 });
      const more = (): void => void stream.write(Buffer.alloc(65_536, 'x'), (error) => error ?? setImmediate(more));
      more();
    },
  ],
  ['does not say which process it is', 'ERR_AGENT_PROTOCOL', (stream) => stream.respond({ ':status': 200 })],
  [
    'gives a process that is no number',
    'ERR_AGENT_PROTOCOL',
    (stream) => stream.respond({ ...HEAD, process: '1/../2' }),
  ],
  [
    'sends a frame of no kind',
    'ERR_AGENT_PROTOCOL',
    (stream) => void (stream.respond(HEAD), stream.write(Buffer.alloc(8, 7))),
  ],
  [
    'announces more than any output',
    'ERR_AGENT_PROTOCOL',
    (stream) => void (stream.respond(HEAD), stream.write(Buffer.from([1, 0, 0, 0, 255, 255, 255, 255]))),
  ],
  [
    'ends within a frame',
    'ERR_AGENT_PROTOCOL',
    withTrailers({ 'exit-code': '0' }, Buffer.from([1, 0, 0, 0, 0, 0, 0, 9, 65])),
  ],
  ['tells two ways in which it ended', 'ERR_AGENT_PROTOCOL', withTrailers({ 'exit-code': '0', 'exit-signal': '9' })],
  ['tells none', 'ERR_AGENT_PROTOCOL', withTrailers({ other: '1' })],
  ['tells a code over 255', 'ERR_AGENT_PROTOCOL', withTrailers({ 'exit-code': '256' })],
  ['tells a code that is no number', 'ERR_AGENT_PROTOCOL', withTrailers({ 'exit-code': '-0' })],
  ['closes the connection', 'ERR_AGENT_LOST', (stream) => void (stream.respond(HEAD), stream.session?.destroy())],
  [
    'says goodbye',
    'ERR_AGENT_LOST',
    (stream) => void (stream.respond(HEAD), stream.session?.goaway(0, 0), stream.session?.destroy()),
  ],
] as readonly (readonly [string, string, (stream: ServerHttp2Stream) => void])[]) {
  test(`an agent that ${what} is ${expected}`, async (t) => {
    const exec = await http2Agent(t, answer, expected === 'ERR_AGENT_TIMEOUT' ? SHORT : LONG);
    t.regex(await code(t, exec()), new RegExp(`^(${expected})$`));
  });
}

function withTrailers(trailers: Record<string, string>, body?: Buffer): (stream: ServerHttp2Stream) => void {
  return (stream) => {
    stream.respond(HEAD, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    stream.end(body);
  };
}

for (const [what, speak] of [
  ['speaks HTTP/1', (socket) => void socket.write('HTTP/1.1 400 Bad Request\r\n\r\n')],
  ['sends garbage', (socket) => void socket.write(Buffer.alloc(4096, 0xa5))],
  ['hangs up at once', (socket) => socket.destroy()],
  [
    'sends frames that are longer than they may be',
    (socket) => void socket.write(Buffer.from([255, 255, 255, 0, 0, 0, 0, 0, 1])),
  ],
  [
    'answers streams that nobody has opened',
    (socket) => void socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 1, 4, 0, 0, 0, 99, 0x88])),
  ],
] as readonly (readonly [string, (socket: Socket) => void])[]) {
  test(`an agent that ${what} is an error`, async (t) => {
    const exec = await rawAgent(t, speak);
    t.regex(await code(t, exec()), /^ERR_AGENT_(LOST|PROTOCOL|TIMEOUT)$/);
  });
}

test('a limit of time that is over before the command begins is a result too, where that is asked for', async (t) => {
  const exec = await http2Agent(t, () => {});
  t.like(await exec({ timeout: 50, reject: false }), { timedOut: true, exitCode: undefined, stdout: '' });
  const late = exec({ timeout: 50, reject: false });
  await t.throwsAsync(late.pid, { code: 'ERR_EXEC_TIMEOUT' });
  t.true((await late).timedOut);
});

test('an agent that accepts and is silent runs into a timeout', async (t) => {
  const exec = await rawAgent(t, () => {});
  t.is(await code(t, exec()), 'ERR_AGENT_TIMEOUT');
});

test('a command that does not end when it should is given up, whatever the agent does', async (t) => {
  const exec = await http2Agent(t, (stream) => stream.respond(HEAD), { ...LONG, answerTimeoutMs: 3_000 });
  t.is(await code(t, exec({ timeout: 50, killGrace: 1 })), 'ERR_EXEC_TIMEOUT');
  t.like(await exec({ timeout: 50, killGrace: 1, reject: false }), { timedOut: true, exitCode: undefined });
  const abort = new AbortController();
  const running = exec({ signal: abort.signal });
  await running.pid;
  abort.abort();
  t.is(await code(t, running), 'ERR_EXEC_ABORTED');
});

/** Sends standard output for as long as the stream takes it. */
function floodOutput(stream: ServerHttp2Stream, onSent: (bytes: number) => void): void {
  const chunk = Buffer.concat([Buffer.from([1, 0, 0, 0, 0, 0, 0xff, 0xf8]), Buffer.alloc(0xfff8)]);
  const more = (): void => {
    onSent(chunk.length);
    stream.write(chunk, (error) => error ?? more());
  };
  more();
}

test('a flood of output that nobody reads is held back', async (t) => {
  let sent = 0;
  const exec = await http2Agent(t, (stream) => {
    stream.respond(HEAD);
    floodOutput(stream, (bytes) => (sent += bytes));
  });
  const flood = exec({ buffer: false });
  flood.catch(() => {});
  const { stdout } = flood;
  await once(stdout, 'readable');
  // It stops by itself: as much as the windows take, and no more.
  let before = -1;
  while (before !== sent) {
    before = sent;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  t.true(sent < 2 * 1024 * 1024, `${sent} bytes were taken`);
  stdout.destroy();
});

test('a flood of a command that has timed out ends at a limit, though nothing is held back any more', async (t) => {
  let sent = 0;
  let requests = 0;
  const exec = await http2Agent(t, (stream) => {
    requests += 1;
    // The first is the command; to end it is asked for in vain.
    if (requests > 1) return;
    stream.respond(HEAD);
    floodOutput(stream, (bytes) => (sent += bytes));
  });
  const flood = exec({ buffer: false, timeout: 200, killGrace: 60_000 });
  const { stdout } = flood;
  await t.throwsAsync(Promise.resolve(flood), { code: 'ERR_EXEC_TIMEOUT' });
  t.true(sent < 16 * 1024 * 1024, `${sent} bytes were taken`);
  stdout.destroy();
});

test('a flood of empty frames, answers and settings ends with the limit of time', async (t) => {
  const exec = await http2Agent(t, (stream) => {
    stream.respond(HEAD);
    const empty = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);
    const more = (): void => void stream.write(empty, (error) => error ?? setImmediate(more));
    more();
  });
  t.is(await code(t, exec({ timeout: 100, killGrace: 1 })), 'ERR_EXEC_TIMEOUT');
});

test('output over maxBuffer ends the command, and what was kept is in the error', async (t) => {
  const body = Buffer.concat([Buffer.from([1, 0, 0, 0, 0, 0, 0, 6]), Buffer.from('abcdef')]);
  const exec = await http2Agent(t, withTrailers({ 'exit-code': '0' }, body));
  const error = await t.throwsAsync(Promise.resolve(exec({ maxBuffer: 4 })), { instanceOf: MicroVMError });
  t.like(error, { code: 'ERR_EXEC_MAX_BUFFER', stdout: 'abcd' });
  t.is((await exec({ maxBuffer: 6 })).stdout, 'abcdef');
});

test('a connection that breaks at any byte gives the whole result or an error, never a made-up status', async (t) => {
  // What a right agent sends, as it sends it, cut off after so many bytes.
  const body = Buffer.concat([Buffer.from([1, 0, 0, 0, 0, 0, 0, 3]), Buffer.from('out')]);
  const path = await hostileAgent(t, withTrailers({ 'exit-code': '7' }, body));
  let cut = Number.POSITIVE_INFINITY;
  const { connect } = await import('node:net');
  const exec = await rawAgent(
    t,
    (socket) => {
      const inner = connect(path);
      inner.on('error', () => {});
      socket.on('data', (data) => inner.write(data)).once('close', () => inner.destroy());
      let passed = 0;
      inner.on('data', (data: Buffer) => {
        const rest = data.subarray(0, Math.max(0, cut - passed));
        passed += data.length;
        if (socket.writable) socket.write(rest);
        if (passed >= cut) socket.end();
      });
    },
    LONG,
  );
  const whole = await exec({ reject: false });
  t.like(whole, { stdout: 'out', exitCode: 7 });
  await fc.assert(
    fc.asyncProperty(fc.nat({ max: 160 }), async (bytes) => {
      cut = bytes;
      try {
        t.like(await exec({ reject: false }), { stdout: 'out', exitCode: 7 });
      } catch (error) {
        t.regex((error as MicroVMError).code ?? String(error), /^ERR_AGENT_(LOST|PROTOCOL|TIMEOUT)$/);
      }
    }),
    { numRuns: 60 },
  );
});
