// The kvm accelerator over an addon of the test's own: what happens when a part of a start fails.

import test from 'ava';

import type { ResolvedMachine } from '../../src/accelerators/accelerator.ts';
import { kvm } from '../../src/accelerators/kvm.ts';
import type { Binding, BindingMachine } from '../../src/binding.ts';
import { MicroVMError } from '../../src/errors.ts';
import { loadBinding } from '../../src/native.ts';

const KERNEL = { image: '/vmlinux', format: 'elf' };
const MACHINE = { memoryBytes: 2 ** 28, kernel: KERNEL, shares: [] as const } as unknown as ResolvedMachine;

const binding = loadBinding() as { -readonly [Name in keyof Binding]: Binding[Name] };
const { BindingMachine: original } = binding;
test.afterEach.always(() => {
  binding.BindingMachine = original;
});

/** A machine of the addon that does what it is told, but for `parts`; its list tells whether it was stopped. */
function machineWith(parts: Partial<BindingMachine>): string[] {
  const log: string[] = [];
  const machine = {
    start: () => log.push('start'),
    stop: async () => void log.push('stop'),
    takeConsole: () => 0,
    wait: () => new Promise(() => {}),
    ...parts,
  } as BindingMachine;
  binding.BindingMachine = { create: () => Promise.resolve(machine) };
  return log;
}

const fail = (): never => {
  throw Object.assign(new Error('KVM_RUN failed'), { code: 'ERR_KVM_FAILED' });
};

test.serial('a machine that does not start is stopped', async (t) => {
  const log = machineWith({ start: fail });
  await t.throwsAsync(kvm.start(MACHINE), { code: 'ERR_KVM_FAILED' });
  t.deepEqual(log, ['stop']);
});

test.serial('a machine whose console cannot be had is stopped', async (t) => {
  const log = machineWith({ takeConsole: fail });
  await t.throwsAsync(kvm.start(MACHINE), { code: 'ERR_KVM_FAILED' });
  t.deepEqual(log, ['start', 'stop']);
});

test.serial('a machine that cannot even be stopped keeps the error of its start', async (t) => {
  machineWith({ start: fail, stop: () => Promise.reject(new Error('stuck')) });
  await t.throwsAsync(kvm.start(MACHINE), { code: 'ERR_KVM_FAILED' });
});

test.serial('a machine that was made while its signal was aborted never runs', async (t) => {
  const abort = new AbortController();
  const log = machineWith({});
  const { create } = binding.BindingMachine;
  binding.BindingMachine = {
    create: (config) => {
      abort.abort(new Error('changed my mind'));
      return create(config);
    },
  };
  t.is(await t.throwsAsync(kvm.start(MACHINE, abort.signal)), abort.signal.reason);
  t.deepEqual(log, ['stop']);
});

test.serial('what the addon counts is told by names', async (t) => {
  const queues = [{ kicks: 1, interrupts: 2, buffers: 3, bytes: 4 }];
  machineWith({
    takeConsole: () => loadBinding().socketPair()[0],
    metrics: () => ({
      vcpusMs: [10, 20],
      devicesMs: 5,
      ramBytes: 4096,
      devices: [
        { deviceType: 19, acknowledgedInterrupts: 7, queues },
        { deviceType: 4, acknowledgedInterrupts: 0, queues: [] },
        { deviceType: 26, acknowledgedInterrupts: 8 },
      ],
    }),
  });
  const machine = await kvm.start(MACHINE);
  t.teardown(() => void machine.console.destroy());
  t.deepEqual(await machine.metrics(), {
    cpu: { totalMs: 35, vcpusMs: [10, 20] },
    memory: { residentBytes: 4096, proportionalBytes: undefined, guestBytes: 4096 },
    devices: [
      { type: 'vsock', acknowledgedInterrupts: 7, queues },
      { type: 'rng', acknowledgedInterrupts: 0, queues: [] },
      { type: 'fs', acknowledgedInterrupts: 8, queues: undefined },
    ],
  });
});

test.serial('what a machine that has ended cannot do is an error of the package', async (t) => {
  machineWith({
    takeConsole: () => loadBinding().socketPair()[0],
    metrics: fail,
    // The addon refuses at once, or later.
    pause: async () => fail(),
    resume: fail,
    pressPowerButton: fail,
  });
  const machine = await kvm.start(MACHINE);
  t.teardown(() => void machine.console.destroy());
  for (const work of [machine.metrics(), machine.pause(), machine.resume(), machine.powerButton()]) {
    await t.throwsAsync(work, { instanceOf: MicroVMError, code: 'ERR_KVM_FAILED' });
  }
});
