// An agent that lies about its ports: nothing of this host is reached but what was named, and little is kept for it.

import type { ServerHttp2Stream } from 'node:http2';
import test, { type ExecutionContext } from 'ava';

import { MicroVMError } from '../../src/errors.ts';
import { AgentApi } from '../../src/guest-api/agent-api.ts';
import { GuestPorts } from '../../src/guest-api/guest-ports.ts';
import { deferred } from '../../src/host/deferred.ts';
import { transportTo } from '../helpers/agent-by-hand.ts';
import { hostileAgent } from '../helpers/hostile-agent.ts';
import { dial, endOf, serve } from '../helpers/tcp.ts';

const ANY = { port: 0, address: '127.0.0.1' } as const;
const LISTENING = { ':status': 200, listener: '1', port: '8080' };

/** Forwards of a guest whose agent answers so; `path` is what it was asked for. */
async function portsOf(
  t: ExecutionContext,
  answer: (stream: ServerHttp2Stream, path: string) => void,
  answerTimeoutMs = 60_000,
): Promise<GuestPorts> {
  const api = new AgentApi(transportTo(await hostileAgent(t, answer)), { answerTimeoutMs, connectTimeoutMs: 60_000 });
  const ports = new GuestPorts();
  ports.attach(api);
  t.teardown(async () => {
    await ports.close(new MicroVMError('ERR_MACHINE_EXITED', 'The test is over'));
    api.close();
  });
  return ports;
}

for (const [what, answer] of [
  ['never answers', () => {}],
  ['refuses without a reason', (stream) => stream.respond({ ':status': 500 }, { endStream: true })],
  ['resets the request', (stream) => stream.close(2)],
  ['breaks off after its answer', (stream) => void (stream.respond(), stream.destroy(new Error('on purpose')))],
] as readonly (readonly [string, (stream: ServerHttp2Stream) => void])[]) {
  test(`a connection to an agent that ${what} is reset`, async (t) => {
    const ports = await portsOf(t, answer, what === 'never answers' ? 500 : undefined);
    const forward = await ports.forward({ guest: 80, host: ANY });
    t.is(await endOf(await dial(t, forward.address().port ?? 0)), 'ECONNRESET');
    // It listens on for the next one.
    t.is(ports.list().length, 1);
  });
}

for (const [what, headers] of [
  ['no listener', { ':status': 200, port: '80' }],
  ['a listener that is a path', { ':status': 200, listener: '1/../../exec', port: '80' }],
  ['no port', { ':status': 200, listener: '1' }],
  ['a port that there is none of', { ':status': 200, listener: '1', port: '65536' }],
] as const) {
  test(`an agent that tells ${what} is ERR_AGENT_PROTOCOL`, async (t) => {
    const ports = await portsOf(t, (stream) => stream.respond(headers));
    await t.throwsAsync(ports.reverse({ guest: 0, host: { port: 1, address: '127.0.0.1' } }), {
      code: 'ERR_AGENT_PROTOCOL',
    });
    t.deepEqual(ports.list(), []);
  });
}

test('a flood of connections that an agent makes up is kept to a limit, and all go to the service that was named', async (t) => {
  let asked = 0;
  let most = 0;
  const full = deferred<void>();
  const service = await serve(t, () => (most = Math.max(most, service.sockets.size)));
  const ports = await portsOf(t, (stream, path) => {
    if (path.startsWith('/v1/listen?')) return stream.respond(LISTENING);
    t.is(path, '/v1/listeners/1/accept');
    asked += 1;
    if (asked === 512) full.resolve();
    stream.respond({ ':status': 200, host: '127.0.0.1', port: '22' });
    stream.resume();
  });
  await ports.reverse({ guest: 0, host: { port: service.port, address: '127.0.0.1' } });
  await full.promise;
  // It stops by itself.
  let before = -1;
  while (before !== asked) {
    before = asked;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  t.true(asked <= 514, `${asked} connections were asked for`);
  t.true(most <= 512, `${most} connections to the service`);
});

test('what an agent sends to a connection that is not read is held back', async (t) => {
  let sent = 0;
  const ports = await portsOf(t, (stream) => {
    stream.respond({ ':status': 200 });
    const more = (): void => {
      sent += 65_536;
      stream.write(Buffer.alloc(65_536), (error) => error ?? more());
    };
    more();
  });
  const forward = await ports.forward({ guest: 80, host: ANY });
  const client = await dial(t, forward.address().port ?? 0);
  client.pause();
  let before = -1;
  while (before !== sent) {
    before = sent;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  // The kernel's buffers of a loopback connection are the most of it.
  t.true(sent < 16 * 1024 * 1024, `${sent} bytes were taken`);
});

test('an agent that does not listen any more ends the forward, and says so', async (t) => {
  let listening: ServerHttp2Stream | undefined;
  const ports = await portsOf(t, (stream, path) => {
    if (!path.startsWith('/v1/listen?')) return;
    listening = stream;
    stream.respond(LISTENING);
  });
  const forward = await ports.reverse({ guest: 0, host: { port: 1, address: '127.0.0.1' } });
  listening?.close();
  await forward.closed;
  t.deepEqual(ports.list(), []);
});
