import { resolve } from 'node:path';
import test from 'ava';

import { MicroVMError } from '../../src/errors.ts';
import { normalize } from '../../src/config/normalize.ts';
import { checkVsockPort, forwardSpec, reverseSpec } from '../../src/config/port-options.ts';

/** Which options are found wrong. */
function problems(work: () => unknown): string[] {
  try {
    work();
    return [];
  } catch (error) {
    if (!(error instanceof MicroVMError)) throw error;
    return (error.problems ?? []).map(({ path }) => path).toSorted();
  }
}

test('a forward has loopback and a free port by default, and its paths are made absolute', (t) => {
  t.deepEqual(forwardSpec({ guest: 80 }), { guest: 80, host: { port: 0, address: '127.0.0.1' } });
  t.deepEqual(forwardSpec({ guest: '/run/a', host: 8080, hostAddress: '::' }), {
    guest: '/run/a',
    host: { port: 8080, address: '::' },
  });
  t.deepEqual(forwardSpec({ guest: 80, host: 'a.sock' }), { guest: 80, host: { path: resolve('a.sock') } });
});

test('a service of this host is a port, one of an address, or a path', (t) => {
  t.deepEqual(reverseSpec({ guest: 0, host: 80 }).host, { port: 80, address: '127.0.0.1' });
  t.deepEqual(reverseSpec({ guest: 0, host: { port: 80, address: '10.0.0.1' } }).host, {
    port: 80,
    address: '10.0.0.1',
  });
  t.deepEqual(reverseSpec({ guest: '/run/a', host: './a' }).host, { path: resolve('a') });
});

test('every wrong option of a forward is told', (t) => {
  const forward = (options: unknown) => problems(() => forwardSpec(options as never));
  t.deepEqual(forward({ guest: 0, host: 65_536, hostAddress: 'localhost', ports: 1 }), [
    'guest',
    'host',
    'hostAddress',
    'ports',
  ]);
  t.deepEqual(forward({ guest: 'relative' }), ['guest']);
  t.deepEqual(forward({ guest: `/${'x'.repeat(107)}` }), ['guest']);
  t.deepEqual(forward({ guest: '/a\0b', host: '' }), ['guest', 'host']);
  t.deepEqual(forward({ guest: 1, host: '/a', hostAddress: '127.0.0.1' }), ['hostAddress']);
  t.deepEqual(forward({}), ['guest']);
  t.deepEqual(forward(null), ['options']);
});

test('every wrong option of a reverse is told', (t) => {
  const reverse = (options: unknown) => problems(() => reverseSpec(options as never));
  t.deepEqual(reverse({ guest: -1, host: 0, to: 1 }), ['guest', 'host', 'to']);
  t.deepEqual(reverse({ guest: 1, host: { port: 0, address: 'x', more: 1 } }), [
    'host.address',
    'host.more',
    'host.port',
  ]);
  t.deepEqual(reverse({ guest: 1 }), ['host']);
});

test('a port in quotes is no path', (t) => {
  const message = /: '8080' is not allowed \(.*; a port is a number, without quotes\)/;
  for (const work of [
    () => forwardSpec({ guest: 80, host: '8080' }),
    () => forwardSpec({ guest: '8080' }),
    () => reverseSpec({ guest: 80, host: '8080' }),
    () => reverseSpec({ guest: '8080', host: 80 }),
    () => reverseSpec({ guest: 80, host: { port: '8080' as never } }),
    () => normalize({ ports: [{ guest: 80, host: '8080' }] }),
  ]) {
    t.throws(work, { code: 'ERR_INVALID_OPTIONS', message });
  }
  t.deepEqual(forwardSpec({ guest: 80, host: './8080' }).host, { path: resolve('8080') });
  t.deepEqual(reverseSpec({ guest: 80, host: '8080.sock' }).host, { path: resolve('8080.sock') });
});

test('ports of a machine are checked with its other options', (t) => {
  t.deepEqual(normalize({ ports: [{ guest: 80, host: 8080 }] }).ports, [
    { guest: 80, host: { port: 8080, address: '127.0.0.1' } },
  ]);
  t.deepEqual(normalize({}).ports, []);
  const ports = [{ guest: 80 }, { guest: 0, hosts: 1 }] as never;
  t.deepEqual(
    problems(() => normalize({ cpus: 0, ports })),
    ['cpus', 'ports[1].guest', 'ports[1].hosts'],
  );
});

test('vsock ports that are reserved are refused by name', (t) => {
  t.notThrows(() => checkVsockPort(5000, [1024, 1025]));
  for (const port of [1024, 1025, 0, -1, 2 ** 32 - 1, '80', undefined]) {
    t.throws(() => checkVsockPort(port, [1024, 1025]), { code: 'ERR_INVALID_OPTIONS', message: /1024 and 1025/ });
  }
});
