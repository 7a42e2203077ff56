import { PassThrough } from 'node:stream';
import test from 'ava';

import type { MachineExit, RunningMachine } from '../../src/accelerators/accelerator.ts';
import type { ShareDaemon } from '../../src/virtio-fs/daemon.ts';
import { startShared } from '../../src/vm/shared-machine.ts';

interface FakeDaemon extends ShareDaemon {
  end(why: string | undefined): void;
}

function fakeDaemon(): FakeDaemon {
  let end: (why: string | undefined) => void = () => {};
  const ended = new Promise<string | undefined>((resolve) => {
    end = resolve;
  });
  return { ended, stop: () => Promise.resolve(), stopSync: () => {}, end };
}

/** A machine that ends when it is killed, or as a test says. */
function fakeRunning(): RunningMachine & { end(exit: MachineExit): void } {
  let end: (exit: MachineExit) => void = () => {};
  const exited = new Promise<MachineExit>((resolve) => {
    end = resolve;
  });
  return {
    console: new PassThrough(),
    exited,
    pause: () => Promise.resolve(),
    resume: () => Promise.resolve(),
    powerButton: () => Promise.resolve(),
    killSync: () => end({ reason: 'stopped' }),
    kill() {
      end({ reason: 'stopped' });
      return exited;
    },
    end,
  };
}

test('without shares it is the machine itself', async (t) => {
  const machine = fakeRunning();
  t.is(await startShared([], () => Promise.resolve(machine)), machine);
});

test('a daemon that fails ends the machine, and is the reason', async (t) => {
  const daemons = [fakeDaemon(), fakeDaemon()];
  const machine = await startShared(daemons, () => Promise.resolve(fakeRunning()));
  daemons[1]?.end('it died');
  t.deepEqual(await machine.exited, { reason: 'failed', detail: 'it died' });
  t.deepEqual(await machine.kill(), { reason: 'failed', detail: 'it died' });
});

test('a monitor that notices first is told why', async (t) => {
  const daemon = fakeDaemon();
  const running = fakeRunning();
  const machine = await startShared([daemon], () => Promise.resolve(running));
  running.end({ reason: 'failed', detail: 'the back end is lost' });
  daemon.end('it died');
  t.deepEqual(await machine.exited, { reason: 'failed', detail: 'it died' });
});

test('a daemon that ends because the machine went is no failure', async (t) => {
  const daemon = fakeDaemon();
  const running = fakeRunning();
  const machine = await startShared([daemon], () => Promise.resolve(running));
  daemon.end(undefined);
  running.end({ reason: 'power-off' });
  t.deepEqual(await machine.exited, { reason: 'power-off' });
});

test('a machine that did not start for its daemon is told so, and another failure is its own', async (t) => {
  const daemon = fakeDaemon();
  const cause = new Error('no connection');
  const started = startShared([daemon], () => Promise.reject(cause));
  daemon.end('it died');
  const error = await t.throwsAsync(started, { code: 'ERR_MOUNT_FAILED', message: 'it died' });
  t.is(error.cause, cause);
  await t.throwsAsync(
    startShared([fakeDaemon()], () => Promise.reject(cause)),
    { is: cause },
  );
});
