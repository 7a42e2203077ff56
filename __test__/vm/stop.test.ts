import test from 'ava';

import type { MachineExit } from '../../src/accelerators/accelerator.ts';
import { MicroVMError } from '../../src/errors.ts';
import type { BootedMachine } from '../../src/vm/create.ts';
import { exec } from '../../src/vm/exec.ts';
import { stop } from '../../src/vm/stop.ts';

interface Fake {
  readonly vm: BootedMachine;
  readonly log: string[];
  end(exit: MachineExit): void;
}

/** A machine that does what a test says; `channel` is what its command channel does. */
function fakeMachine(channel: Partial<BootedMachine['channel']>): Fake {
  const log: string[] = [];
  const ended = new AbortController();
  let resolve: (exit: MachineExit) => void = () => {};
  const exited = new Promise<MachineExit>((done) => (resolve = done));
  const end = (exit: MachineExit): void => {
    ended.abort(exit);
    resolve(exit);
  };
  const vm = {
    spec: { env: {} },
    channel,
    console: { tail: 'last words' },
    exited,
    ended: ended.signal,
    kill() {
      log.push('kill');
      end({ reason: 'stopped' });
      return exited;
    },
  } as unknown as BootedMachine;
  return { vm, log, end };
}

test('a guest that switches itself off has powered off', async (t) => {
  const fake = fakeMachine({
    powerOff: async () => {
      setImmediate(() => fake.end({ reason: 'power-off' }));
    },
  });
  t.deepEqual(await stop(fake.vm, {}), { reason: 'power-off' });
});

test('a guest that does not switch itself off in time is killed', async (t) => {
  const fake = fakeMachine({ powerOff: () => Promise.resolve() });
  t.deepEqual(await stop(fake.vm, { timeout: 20 }), { reason: 'stopped' });
});

test('a guest that cannot be asked is killed without waiting', async (t) => {
  const fake = fakeMachine({ powerOff: () => Promise.reject(new Error('no connection')) });
  t.deepEqual(await stop(fake.vm, { timeout: 3_600_000 }), { reason: 'stopped' });
});

test('a machine that has ended is not asked', async (t) => {
  const fake = fakeMachine({ powerOff: () => Promise.reject(new Error('must not be called')) });
  fake.end({ reason: 'reset' });
  t.deepEqual(await stop(fake.vm, {}), { reason: 'reset' });
});

test('a command whose machine ends is told why, with the console', async (t) => {
  const fake = fakeMachine({
    run: () => {
      setImmediate(() => fake.end({ reason: 'failed', detail: 'QEMU ended with signal 9' }));
      return Promise.reject(new MicroVMError('ERR_CHANNEL_SHORT_READ', 'The connection was closed'));
    },
  });
  const error = await t.throwsAsync(exec(fake.vm, 'true', [], {}), { instanceOf: MicroVMError });
  t.is(error.code, 'ERR_MACHINE_FAILED');
  t.is(error.message, 'The machine failed while a command ran or waited: QEMU ended with signal 9');
  t.is(error.consoleTail, 'last words');
  t.is(error.command, 'true');
});

test('a channel that breaks while the machine runs on keeps its own error', async (t) => {
  const { vm } = fakeMachine({
    run: () => Promise.reject(new MicroVMError('ERR_CHANNEL_PROTOCOL', 'Garbage')),
  });
  await t.throwsAsync(exec(vm, 'true', [], {}), { code: 'ERR_CHANNEL_PROTOCOL' });
});

test('the result of a command that failed is in the error', async (t) => {
  const { vm } = fakeMachine({
    run: () => Promise.resolve({ stdout: Buffer.from('out'), stderr: Buffer.from('err'), exitCode: 3, durationMs: 5 }),
  });
  const error = await t.throwsAsync(exec(vm, 'sh', ['-c', 'exit 3'], {}), { instanceOf: MicroVMError });
  t.like(error, { code: 'ERR_EXEC_FAILED', stdout: 'out', stderr: 'err', exitCode: 3, timedOut: false, durationMs: 5 });
});
