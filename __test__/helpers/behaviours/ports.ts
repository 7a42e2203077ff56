// Streams between programs of the host and of the guest: its vsock, and forwarded ports, for every accelerator.

import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Duplex } from 'node:stream';
import test from 'ava';

import { MicroVM, MicroVMError, type MicroVMOptions } from '../../../index.ts';
import { loadBinding } from '../../../src/native.ts';
import { type AcceleratorName, PATIENCE_MS, privateRuntimeFolder } from '../guest.ts';
import { askPort, askVsock, askVsockAtOnce, guestServer, loadModule, vsockServer } from '../guest-perl.ts';
import { type Holdings, holdings } from '../leftovers.ts';
import { dial, endOf, serve, textOf } from '../tcp.ts';
import { temporaryFolder } from '../temporary-folder.ts';

const LOOPBACK_CID = 1;
const AGENT_PORT = 1025;
/** Long enough for a program of the guest to start and connect; if it is not, the test is an easier one. */
const STANDSTILL_MS = 1000;
/** What the kernel of a guest says of a port that nobody listens at: virtio knows a reset only. */
const REFUSED = /^no: (104|111)$/;

/** Declares the tests; one guest serves them all, one after another. */
export function portBehaviours(accelerator: AcceleratorName, options: MicroVMOptions = {}): void {
  privateRuntimeFolder();
  let vm: MicroVM;
  let before: Holdings;

  test.before(async () => {
    // What the addon starts once for the process, and keeps.
    await loadBinding().spawnHelper({ program: '/bin/true', args: [], env: {}, fds: [], captureStderr: false }).wait();
    before = await holdings();
    const ports = [{ guest: 8080 }];
    vm = await MicroVM.create({
      accelerator,
      bootTimeout: PATIENCE_MS,
      rootfs: 'host',
      memory: '512MiB',
      name: 'ports',
      ports,
      ...options,
    });
  });
  test.after.always(async () => {
    await vm?.kill();
  });

  const ask = async (to: number | string, text: string, t: Parameters<typeof dial>[0]): Promise<string> => {
    const socket = await dial(t, to);
    socket.end(text);
    return textOf(socket);
  };

  test.serial('a vsock port of the guest is reached, and either half ends by itself', async (t) => {
    await t.throwsAsync(vm.vsock.connect(5000), { code: 'ERR_VSOCK_REFUSED', instanceOf: MicroVMError });
    const server = await vsockServer(vm, 5000);
    const talks = Array.from({ length: 20 }, async (_, index) => {
      const connection = await vm.vsock.connect(5000);
      connection.end(`${index}`.repeat(10_000));
      return textOf(connection);
    });
    t.deepEqual(
      await Promise.all(talks),
      talks.map((_, index) => `got ${`${index}`.repeat(10_000)}`),
    );
    await server.end();
    await t.throwsAsync(vm.vsock.connect(5000), { code: 'ERR_VSOCK_REFUSED' });
  });

  test.serial(
    "a program of the guest reaches the host's listener, by events and by iteration, until it is closed",
    async (t) => {
      t.regex((await askVsock(vm, 6000, 'too early')).stdout, REFUSED);
      const server = await vm.vsock.listen(6000);
      await t.throwsAsync(vm.vsock.listen(6000), { code: 'ERR_VSOCK_PORT_TAKEN' });
      // Nobody takes it yet: it waits.
      const first = askVsock(vm, 6000, 'one');
      const answer = async (connection: Duplex): Promise<void> => {
        connection.end(`heard ${await textOf(connection)}`);
      };
      for await (const connection of server) {
        await answer(connection);
        break;
      }
      t.is((await first).stdout, 'heard one');
      server.on('connection', (connection) => void answer(connection));
      const more = await Promise.all(['two', 'three', 'four'].map((text) => askVsock(vm, 6000, text)));
      t.deepEqual(
        more.map(({ stdout }) => stdout),
        ['heard two', 'heard three', 'heard four'],
      );
      await server.close();
      t.regex((await askVsock(vm, 6000, 'too late')).stdout, REFUSED);
      await (await vm.vsock.listen(6000)).close();
    },
  );

  test.serial('fifty that the guest opens before anybody takes one all wait', async (t) => {
    await using server = await vm.vsock.listen(6000);
    const asked = askVsockAtOnce(vm, 6000, 50);
    // The guest connects to all of them while this process does nothing at all.
    await asked.pid;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, STANDSTILL_MS);
    server.on('connection', (connection: Duplex) => void textOf(connection).then((text) => connection.end(text)));
    t.is((await asked).stdout, Array.from({ length: 50 }, (_, index) => `${index}\n`).join(''));
  });

  test.serial('ports that are the agent’s are nobody else’s', async (t) => {
    for (const port of [1024, 1025, 0, 2 ** 32 - 1, 1.5]) {
      await t.throwsAsync(vm.vsock.connect(port), { code: 'ERR_INVALID_OPTIONS' });
      await t.throwsAsync(vm.vsock.listen(port), { code: 'ERR_INVALID_OPTIONS' });
    }
  });

  test.serial('only the host reaches the agent: a program of the guest is hung up on', async (t) => {
    const { modules } = await import('../../../src/guest/kernel.ts').then(({ findKernel }) => findKernel(undefined));
    const module = await readFile(join(modules ?? '', 'kernel/net/vmw_vsock/vsock_loopback.ko'));
    await vm.fs.writeFile('/tmp/vsock_loopback.ko', module);
    await loadModule(vm, '/tmp/vsock_loopback.ko');
    // The way is there: another program of the guest answers by it.
    const server = await vsockServer(vm, 5001);
    t.is((await askVsock(vm, 5001, 'by myself', LOOPBACK_CID)).stdout, 'got by myself');
    await server.end();
    // HTTP/2's greeting: the host would get settings for it.
    const greeting = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0';
    const heard = await askVsock(vm, AGENT_PORT, greeting.replaceAll('\0', ''), LOOPBACK_CID);
    t.is(heard.stdout, '');
    t.is((await vm.exec('echo', ['still served'])).stdout, 'still served\n');
  });

  test.serial("a port of the guest is this host's from the boot on", async (t) => {
    const [forward] = vm.forwards;
    const { address, port } = forward?.address() ?? {};
    t.is(address, '127.0.0.1');
    t.is(await endOf(await dial(t, port ?? 0)), 'ECONNRESET', 'nobody listens in the guest yet');
    const server = await guestServer(vm, 8080);
    t.is(await ask(port ?? 0, 'hello', t), 'got hello');
    const many = Array.from({ length: 50 }, (_, index) => ask(port ?? 0, `${index}`, t));
    t.deepEqual(
      await Promise.all(many),
      many.map((_, index) => `got ${index}`),
    );
    await server.end();
  });

  test.serial('Unix sockets are forwarded like ports', async (t) => {
    const folder = await temporaryFolder(t);
    const server = await guestServer(vm, '/run/service.sock');
    await using forward = await vm.forward({ guest: '/run/service.sock', host: join(folder, 'here') });
    t.is(await ask(forward.address().address, 'by paths', t), 'got by paths');
    await server.end();
  });

  test.serial('a service of this host is reached from the guest, and no other one', async (t) => {
    const answer = (text: string) => (socket: Parameters<Parameters<typeof serve>[1]>[0]) =>
      void textOf(socket).then((asked) => socket.end(`${text} ${asked}`));
    const [named, other] = await Promise.all([serve(t, answer('named')), serve(t, answer('other'))]);
    const reverse = await vm.reverse({ guest: 5432, host: named.port });
    t.deepEqual(reverse.address(), { address: '127.0.0.1', port: 5432 });
    const heard = await Promise.all(['a', 'b', 'c'].map((text) => askPort(vm, 5432, text)));
    t.deepEqual(
      heard.map(({ stdout }) => stdout),
      ['named a', 'named b', 'named c'],
    );
    t.is((await askPort(vm, other.port, 'and you?')).stdout, 'no: 111');
    await t.throwsAsync(vm.reverse({ guest: 5432, host: other.port }), { code: 'ERR_PORT_TAKEN' });
    named.server.close();
    // It is reset, which a program may see while it still connects.
    t.regex((await askPort(vm, 5432, 'gone?')).stdout, /^(no: 104)?$/);
    await reverse.close();
    t.is((await askPort(vm, 5432, 'closed?')).stdout, 'no: 111');
  });

  test.serial('a port that is taken is told before anything is built', async (t) => {
    const taken = await serve(t, () => {});
    const phases: string[] = [];
    await t.throwsAsync(
      MicroVM.create({
        accelerator,
        ...options,
        ports: [{ guest: 80 }, { guest: 81, host: taken.port }],
        onPhase: (phase) => void phases.push(phase),
      }),
      { code: 'ERR_PORT_TAKEN', message: new RegExp(String(taken.port)) },
    );
    t.deepEqual(phases, ['choose']);
  });

  test.serial('what a machine is can be asked', async (t) => {
    const { info } = vm;
    t.like(info, { accelerator, cpus: 1, memoryBytes: 512 * 2 ** 20 });
    t.is((await vm.exec('uname', ['-r'])).stdout.trim(), info.kernel.release ?? '');
    t.true(info.startedAt.getTime() <= Date.now());
    t.deepEqual([info.id, basename(info.runtimeFolder)], [vm.name, '@ports']);
    t.is(info.pid === process.pid, accelerator === 'kvm');
  });

  test.serial('the end of the machine ends all, and nothing is left', async (t) => {
    const server = await vm.vsock.listen(7000);
    await vsockServer(vm, 5002);
    const connection = await vm.vsock.connect(5002);
    const open = await dial(t, vm.forwards[0]?.address().port ?? 0);
    const ended = [once(server, 'close'), once(connection, 'close'), endOf(open)];
    t.deepEqual(await vm.shutdown({ timeout: PATIENCE_MS }), { reason: 'power-off' });
    await Promise.all(ended);
    await t.throwsAsync(vm.vsock.connect(5002), { code: 'ERR_MACHINE_EXITED' });
    await t.throwsAsync(vm.vsock.listen(5002), { code: 'ERR_MACHINE_EXITED' });
    await t.throwsAsync(vm.forward({ guest: 80 }), { code: 'ERR_MACHINE_EXITED' });
    await t.throwsAsync(vm.reverse({ guest: 80, host: 80 }), { code: 'ERR_MACHINE_EXITED' });
    await t.throwsAsync(vm.metrics(), { code: 'ERR_MACHINE_EXITED' });
    t.deepEqual(vm.forwards, []);
    t.deepEqual(await holdings(), before);
  });
}
