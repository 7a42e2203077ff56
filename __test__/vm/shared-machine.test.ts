import test from 'ava';

import type { MachineExit, RunningMachine } from '../../src/accelerators/accelerator.ts';
import type { ShareDaemon } from '../../src/virtio-fs/daemon.ts';
import { startShared } from '../../src/vm/shared-machine.ts';

interface Ends {
  readonly daemon: ShareDaemon;
  readonly end: (why: string | undefined) => void;
}

function resolvers<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

function daemon(name: string): Ends {
  const { promise, resolve } = resolvers<string | undefined>();
  return { daemon: { name, ended: promise, stop: async () => {}, stopSync: () => {} }, end: resolve };
}

function machine(): { running: RunningMachine; end: (exit: MachineExit) => void } {
  const { promise, resolve } = resolvers<MachineExit>();
  const kill = (): Promise<MachineExit> => {
    resolve({ reason: 'stopped' });
    return promise;
  };
  return { running: { exited: promise, kill } as unknown as RunningMachine, end: resolve };
}

test('without shares it is the machine itself', async (t) => {
  const { running } = machine();
  t.is(await startShared([], async () => running), running);
});

test('a daemon that says why it ends fails the machine', async (t) => {
  const { running } = machine();
  const [first, second] = [daemon('one'), daemon('two')];
  const shared = await startShared([first.daemon, second.daemon], async () => running);
  second.end('two ended with signal 9');
  t.deepEqual(await shared.exited, { reason: 'failed', detail: 'two ended with signal 9' });
});

test('a daemon that ends without a word fails a machine that goes on', async (t) => {
  const { running } = machine();
  const { daemon: only, end } = daemon('The daemon');
  const shared = await startShared([only], async () => running);
  end(undefined);
  t.deepEqual(await shared.exited, { reason: 'failed', detail: 'The daemon ended while the machine was running' });
});

test("a machine's own end is told as it is, whether daemons notice before it or after", async (t) => {
  for (const order of ['before', 'after']) {
    const { running, end } = machine();
    const { daemon: only, end: endDaemon } = daemon('The daemon');
    const shared = await startShared([only], async () => running);
    if (order === 'before') endDaemon(undefined);
    end({ reason: 'power-off' });
    if (order === 'after') endDaemon('The daemon ended with exit code 1');
    t.deepEqual(await shared.exited, { reason: 'power-off' });
  }
});

test("a monitor that ends for want of its daemon is told with the daemon's reason, which comes later", async (t) => {
  const { running, end } = machine();
  const { daemon: only, end: endDaemon } = daemon('The daemon');
  const shared = await startShared([only], async () => running);
  end({ reason: 'failed', detail: 'QEMU ended with exit code 1' });
  // As late as the last words of a daemon may be.
  setTimeout(() => endDaemon('The daemon ended with signal 9'), 1_000);
  t.deepEqual(await shared.exited, { reason: 'failed', detail: 'The daemon ended with signal 9' });
});

test('a monitor that fails by itself keeps its reason, and nobody waits for daemons that have ended well', async (t) => {
  const { running, end } = machine();
  const { daemon: only, end: endDaemon } = daemon('The daemon');
  const shared = await startShared([only], async () => running);
  end({ reason: 'failed', detail: 'QEMU ended with signal 6' });
  endDaemon(undefined);
  t.deepEqual(await shared.exited, { reason: 'failed', detail: 'QEMU ended with signal 6' });
});

test('a monitor that cannot start for want of its daemon is told so, and another failure is its own', async (t) => {
  const { daemon: only, end } = daemon('The daemon');
  const cause = new Error('cannot connect');
  const start = async (): Promise<never> => {
    setTimeout(() => end('The daemon ended with signal 9'), 1_000);
    throw cause;
  };
  const error = await t.throwsAsync(startShared([only], start), {
    code: 'ERR_MOUNT_FAILED',
    message: 'The daemon ended with signal 9',
  });
  t.is(error.cause, cause);
  const { daemon: well } = daemon('The daemon');
  await t.throwsAsync(
    startShared([well], () => Promise.reject(cause)),
    { is: cause },
  );
});
