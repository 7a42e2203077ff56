// Forwarded ports with the real agent as a process of this machine: its "guest" is this machine.

import { once } from 'node:events';
import { watch } from 'node:fs';
import { readdir, stat, writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';

import { MicroVMError } from '../../src/errors.ts';
import type { ForwardSpec, ReverseSpec } from '../../src/config/machine-spec.ts';
import { deferred } from '../../src/host/deferred.ts';
import { GuestPorts } from '../../src/guest-api/guest-ports.ts';
import type { PortForward } from '../../src/guest-api/port-forward.ts';
import { type AgentByHand, agentByHand } from '../helpers/agent-by-hand.ts';
import { startFixture } from '../helpers/fixture-process.ts';
import { dial, endOf, fill, serve, textOf } from '../helpers/tcp.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

const ANY = { port: 0, address: '127.0.0.1' } as const;

interface Ports {
  readonly ports: GuestPorts;
  readonly agent: AgentByHand;
  forward(guest: ForwardSpec['guest'], host?: ForwardSpec['host']): Promise<PortForward>;
  reverse(host: ReverseSpec['host'], guest?: ReverseSpec['guest']): Promise<PortForward>;
}

async function portsOf(t: ExecutionContext): Promise<Ports> {
  const agent = await agentByHand(t);
  const ports = new GuestPorts();
  ports.attach(agent.api);
  t.teardown(() => ports.close(new MicroVMError('ERR_MACHINE_EXITED', 'The test is over')));
  return {
    ports,
    agent,
    forward: (guest, host = ANY) => ports.forward({ guest, host }),
    reverse: (host, guest = 0) => ports.reverse({ guest, host }),
  };
}

const portOf = (forward: PortForward): number => forward.address().port ?? 0;

/** Answers with what it got, once the other side has ended. */
const answerAtEnd = (socket: Socket): void =>
  void textOf(socket).then(
    (text) => socket.end(`got ${text}`),
    () => {},
  );

const HAS_IPV6 = Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === '::1'));

for (const [address, reached, refused] of [
  ['127.0.0.1', ['127.0.0.1'], ['127.0.0.2', '::1']],
  ['127.0.0.2', ['127.0.0.2'], ['127.0.0.1', '::1']],
  ['0.0.0.0', ['127.0.0.1', '127.0.0.2'], ['::1']],
  ['::1', ['::1'], ['127.0.0.1']],
  ['::', ['::1', '127.0.0.1'], []],
] as const) {
  const title = `a port that listens at ${address} is reached at ${reached.join(' and ')} and nowhere else`;
  const [declare, why] = address.includes(':') && !HAS_IPV6 ? [test.skip, ' (not run: no IPv6)'] : [test, ''];
  declare(title + why, async (t) => {
    const { forward } = await portsOf(t);
    const server = await serve(t, answerAtEnd);
    const opened = await forward(server.port, { port: 0, address });
    t.is(opened.address().address, address);
    for (const host of reached) {
      const client = await dial(t, portOf(opened), host);
      client.end(host);
      t.is(await textOf(client), `got ${host}`);
    }
    for (const host of refused) {
      // Without IPv6 there is not even an address to refuse.
      const error = await t.throwsAsync<NodeJS.ErrnoException>(dial(t, portOf(opened), host));
      t.regex(error?.code ?? '', HAS_IPV6 ? /^ECONNREFUSED$/ : /^(ECONNREFUSED|EADDRNOTAVAIL|EAFNOSUPPORT)$/);
    }
  });
}

test('an address that is not this host’s is refused with what the kernel said', async (t) => {
  const { forward } = await portsOf(t);
  const error = await t.throwsAsync(forward(80, { port: 0, address: '192.0.2.1' }), { instanceOf: MicroVMError });
  t.like(error, {
    code: 'ERR_SOCKET_FAILED',
    message: 'Cannot listen at 192.0.2.1 port 0 of this host (EADDRNOTAVAIL)',
  });
  t.regex(error?.hint ?? '', /address of this host/);
});

for (const [way, open] of [
  ['forward', (ports: Ports, port: number) => ports.forward(port)],
  ['reverse', (ports: Ports, port: number) => ports.reverse({ port, address: '127.0.0.1' })],
] as const) {
  test(`${way}: bytes go both ways, and either side may end first`, async (t) => {
    const ports = await portsOf(t);
    const late = await serve(t, answerAtEnd);
    const client = await dial(t, portOf(await open(ports, late.port)));
    client.end('hello');
    t.is(await textOf(client), 'got hello');

    const heard = deferred<string>();
    const early = await serve(t, (socket) => {
      socket.end('first');
      heard.resolve(textOf(socket));
    });
    const other = await dial(t, portOf(await open(ports, early.port)));
    t.is(await textOf(other), 'first');
    other.end('and after that');
    t.is(await heard.promise, 'and after that');
  });

  test(`${way}: a connection that nobody takes at the far end is reset, and the next one is served`, async (t) => {
    const ports = await portsOf(t);
    const gone = await serve(t, () => {});
    gone.server.close();
    await once(gone.server, 'close');
    const forward = await open(ports, gone.port);
    t.is(await endOf(await dial(t, portOf(forward))), 'ECONNRESET');
    t.is(await endOf(await dial(t, portOf(forward))), 'ECONNRESET');
  });

  test(`${way}: a reset comes through, from either side`, async (t) => {
    const ports = await portsOf(t);
    const ended = deferred<string>();
    const peers = await serve(t, (socket) => {
      socket.once('data', (data) => {
        if (String(data) === 'reset me') socket.resetAndDestroy();
        else {
          socket.write('ready');
          ended.resolve(endOf(socket));
        }
      });
    });
    const forward = await open(ports, peers.port);
    const first = await dial(t, portOf(forward));
    first.write('reset me');
    t.is(await endOf(first), 'ECONNRESET');

    const second = await dial(t, portOf(forward));
    second.write('I shall go');
    await once(second, 'data');
    second.resetAndDestroy();
    t.is(await ended.promise, 'ECONNRESET');
  });

  test(`${way}: who does not read holds up who writes`, async (t) => {
    const ports = await portsOf(t);
    const deaf = await serve(t, (socket) => void socket.pause());
    const client = await dial(t, portOf(await open(ports, deaf.port)));
    const up = await fill(client, 64 * 1024 * 1024);
    t.true(up < 32 * 1024 * 1024, `${up} bytes went up`);

    const down = deferred<number>();
    const talkative = await serve(t, (socket) => down.resolve(fill(socket, 64 * 1024 * 1024)));
    const reader = await dial(t, portOf(await open(ports, talkative.port)));
    reader.pause();
    t.true((await down.promise) < 32 * 1024 * 1024, `${await down.promise} bytes came down`);
  });

  test(`${way}: many connections at once are served, each with its own bytes, and nothing is left`, async (t) => {
    const ports = await portsOf(t);
    const echo = await serve(t, answerAtEnd);
    const forward = await open(ports, echo.port);
    // The connection to the API is there from the first one on.
    const warm = await dial(t, portOf(forward));
    warm.end('');
    await textOf(warm);
    const before = await ports.agent.holdings();
    const talks = Array.from({ length: 200 }, async (_, index) => {
      const client = await dial(t, portOf(forward));
      client.end(`${index} `.repeat(500));
      return textOf(client);
    });
    t.deepEqual(
      await Promise.all(talks),
      talks.map((_, index) => `got ${`${index} `.repeat(500)}`),
    );
    t.is(echo.sockets.size, 0);
    await forward.close();
    // One that has been answered shows that what came before was worked on.
    const probe = await ports.forward(echo.port);
    const last = await dial(t, portOf(probe));
    last.end('');
    await textOf(last);
    await probe.close();
    const { descriptors } = await ports.agent.holdings();
    t.true(descriptors <= before.descriptors, `${descriptors} descriptors, ${before.descriptors} before`);
  });

  test(`${way}: closing it stops the listening and breaks off its connections`, async (t) => {
    const ports = await portsOf(t);
    const ended = deferred<string>();
    const peers = await serve(t, (socket) => {
      socket.write('there');
      ended.resolve(endOf(socket));
    });
    const forward = await open(ports, peers.port);
    const client = await dial(t, portOf(forward));
    await once(client, 'data');
    const broken = endOf(client);
    await Promise.all([forward.close(), forward.close()]);
    await forward.closed;
    t.not(await broken, '');
    t.regex(await ended.promise, /ECONNRESET|end/);
    t.deepEqual(ports.ports.list(), []);
    // The agent hears of it by its own connection.
    await ports.agent.api.post('/v1/nothing').catch(() => {});
    await t.throwsAsync(dial(t, portOf(forward)), { code: 'ECONNREFUSED' });
  });
}

test('closing waits for nobody who does not read', async (t) => {
  const ports = await portsOf(t);
  const talkative = await serve(t, (socket) => void fill(socket, 64 * 1024 * 1024));
  const forward = await ports.forward(talkative.port);
  const client = await dial(t, portOf(forward));
  client.pause();
  await once(client, 'readable');
  await forward.close();
  t.pass();
});

test('Unix sockets are forwarded both ways, and their files are gone afterwards', async (t) => {
  const ports = await portsOf(t);
  const folder = await temporaryFolder(t);
  const [service, here, there] = ['service', 'here', 'there'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  await serve(t, answerAtEnd, service);
  const forward = await ports.forward(service, { path: here });
  t.deepEqual(forward.address(), { address: here, port: undefined });
  t.is((await stat(here)).mode & 0o777, 0o600);
  const client = await dial(t, here);
  client.end('a path');
  t.is(await textOf(client), 'got a path');

  const reverse = await ports.reverse({ path: here }, there);
  t.deepEqual(reverse.address(), { address: there, port: undefined });
  t.is((await stat(there)).mode & 0o777, 0o666);
  const other = await dial(t, there);
  other.end('two paths');
  t.is(await textOf(other), 'got two paths');

  await Promise.all([forward.close(), reverse.close()]);
  await t.throwsAsync(stat(here), { code: 'ENOENT' });
  // The next answer comes after the agent has heard of it.
  await ports.agent.api.post('/v1/nothing').catch(() => {});
  await t.throwsAsync(stat(there), { code: 'ENOENT' });
});

test('nobody but its owner can connect to a Unix socket, not even at its first moment', async (t) => {
  const ports = await portsOf(t);
  const folder = await temporaryFolder(t);
  const seen: string[] = [];
  const watcher = watch(folder);
  t.teardown(() => watcher.close());
  const over = new Promise<void>((resolve) => {
    watcher.on('change', (eventType, name) =>
      name === 'over' ? resolve() : seen.push(`${eventType} ${String(name)}`),
    );
  });
  const forward = await ports.forward(80, { path: join(folder, 'socket') });
  t.is((await stat(forward.address().address)).mode & 0o777, 0o600);
  await writeFile(join(folder, 'over'), '');
  await over;
  // It was made, and its mode was never changed: that would be a `change`.
  t.deepEqual(seen, ['rename socket']);
});

test('a worker of node:cluster is told that it cannot have such a socket', async (t) => {
  const folder = await temporaryFolder(t);
  const { line } = await startFixture(t, 'cluster-forward', join(folder, 'socket'));
  t.regex(line, /^ERR_SOCKET_FAILED .*\(ENOTSUP\) Forward to a TCP port/);
  t.deepEqual(await readdir(folder), []);
});

test('what is wrong with the path of a Unix socket is told with a hint of its own', async (t) => {
  const ports = await portsOf(t);
  const folder = await temporaryFolder(t);
  const long = { path: `/${'x'.repeat(107)}` };
  const tooLong = { code: 'ERR_SOCKET_PATH_TOO_LONG', instanceOf: MicroVMError } as const;
  for (const work of [() => ports.forward(80, long), () => ports.reverse(long)]) {
    const error = await t.throwsAsync(work(), tooLong);
    t.regex(error.hint ?? '', /^Choose a shorter path/);
  }
  const failed = { code: 'ERR_SOCKET_FAILED', instanceOf: MicroVMError } as const;
  const lost = await t.throwsAsync(ports.forward(80, { path: join(folder, 'no', 'folder') }), failed);
  t.regex(lost.message, /ENOENT/);
  t.is(lost.hint, 'Make the folder that it is to be in first.');
  t.deepEqual(ports.ports.list(), []);
});

test('a port that is taken is told, on either side', async (t) => {
  const ports = await portsOf(t);
  const folder = await temporaryFolder(t);
  const path = join(folder, 'socket');
  const { port } = await serve(t, () => {});
  await serve(t, () => {}, path);
  const taken = { code: 'ERR_PORT_TAKEN', instanceOf: MicroVMError } as const;
  await t.throwsAsync(ports.forward(80, { port, address: '127.0.0.1' }), { ...taken, message: /of this host/ });
  await t.throwsAsync(ports.forward(80, { path }), { ...taken, message: /socket of this host/ });
  await t.throwsAsync(ports.reverse({ port: 80, address: '127.0.0.1' }, port), { ...taken, message: /of the guest/ });
  await t.throwsAsync(ports.reverse({ port: 80, address: '127.0.0.1' }, path), { ...taken, message: /of the guest/ });
  await t.throwsAsync(ports.reverse({ path }, join(folder, 'no', 'folder')), {
    code: 'ERR_AGENT_REFUSED',
    message: /ENOENT/,
  });
  t.deepEqual(ports.ports.list(), []);
});

test('connections that come before the agent is up wait for it, and the end of the machine ends all', async (t) => {
  const agent = await agentByHand(t);
  const echo = await serve(t, answerAtEnd);
  const ports = new GuestPorts();
  const forward = await ports.forward({ guest: echo.port, host: ANY });
  const early = await dial(t, portOf(forward));
  early.end('early');
  const answer = textOf(early);
  ports.attach(agent.api);
  t.is(await answer, 'got early');

  const open = await dial(t, portOf(forward));
  open.write('still here');
  const broken = endOf(open);
  const over = new MicroVMError('ERR_MACHINE_EXITED', 'It is over');
  await ports.close(over);
  t.is(await broken, 'ECONNRESET');
  t.is(await t.throwsAsync(ports.forward({ guest: 1, host: ANY })), over);
  t.is(await t.throwsAsync(ports.reverse({ guest: 1, host: ANY })), over);
});
