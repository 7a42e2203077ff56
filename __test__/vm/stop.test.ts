import { join } from 'node:path';
import test from 'ava';

import { COMMAND_PORT, CommandChannel } from '../../src/vsock/command-channel.ts';
import { listenForGuest } from '../../src/vsock/unix.ts';
import { exec } from '../../src/vm/exec.ts';
import { stop } from '../../src/vm/stop.ts';
import { FakeAgent, reply } from '../helpers/fake-agent.ts';
import { fakeMachine } from '../helpers/fake-machine.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

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

test('two stops at once are one, and the second does not disturb the first', async (t) => {
  let asked = 0;
  const fake = fakeMachine({
    powerOff: async () => {
      asked += 1;
      setImmediate(() => setImmediate(() => fake.end({ reason: 'power-off' })));
    },
  });
  const exits = await Promise.all([stop(fake.vm), stop(fake.vm, { timeout: 1 })]);
  t.deepEqual(exits, [{ reason: 'power-off' }, { reason: 'power-off' }]);
  t.is(asked, 1);
});

test('a stop that ends a command whose owner then stops the machine too lets the guest power off', async (t) => {
  const socket = join(await temporaryFolder(t), 'vsock');
  const channel = new CommandChannel(await listenForGuest(socket, COMMAND_PORT));
  t.teardown(() => channel.close());
  const agent = await FakeAgent.dial(`${socket}_${COMMAND_PORT}`);
  const connected = channel.accept({ timeoutMs: 60_000 });
  await agent.answerProbe();
  await connected;
  const fake = fakeMachine(channel);

  const owner = (async () => {
    try {
      await exec(fake.vm, 'sleep', ['1000'], {});
    } finally {
      await stop(fake.vm);
    }
  })();
  await agent.command();
  const stopped = stop(fake.vm);
  const rejected = t.throwsAsync(owner, { code: 'ERR_MACHINE_EXITED' });
  await agent.closed();
  const again = await FakeAgent.ready(`${socket}_${COMMAND_PORT}`);
  t.is(await again.command(), '\0poweroff');
  again.socket.end(reply());
  await again.closed();
  fake.end({ reason: 'power-off' });
  t.deepEqual(await stopped, { reason: 'power-off' });
  await rejected;
});

test('a paused machine runs on before it is asked, and one that cannot be resumed is asked too', async (t) => {
  const fake = fakeMachine({
    powerOff: async () => {
      fake.log.push('power off');
      setImmediate(() => fake.end({ reason: 'power-off' }));
    },
  });
  t.deepEqual(await stop(fake.vm), { reason: 'power-off' });
  t.deepEqual(fake.log.slice(0, 2), ['resume', 'power off']);

  const stuck = fakeMachine({ powerOff: async () => setImmediate(() => stuck.end({ reason: 'power-off' })) as never });
  stuck.vm.machine.resume = () => Promise.reject(new Error('gone'));
  t.deepEqual(await stop(stuck.vm), { reason: 'power-off' });
});

for (const options of [{ timeout: 0 }, { timeout: 'soon' }, { timeuot: 5 }, null, 5]) {
  test(`stopping with ${JSON.stringify(options)} is refused, and nothing is stopped`, async (t) => {
    const { vm, log } = fakeMachine({});
    await t.throwsAsync(stop(vm, options as object), { code: 'ERR_INVALID_OPTIONS' });
    t.deepEqual(log, []);
  });
}
