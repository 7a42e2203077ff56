// The kvm accelerator over an addon of the test's own: what happens when a part of a start fails.

import test from 'ava';

import type { ResolvedMachine } from '../../src/accelerators/accelerator.ts';
import { kvm } from '../../src/accelerators/kvm.ts';
import type { Binding, BindingMachine } from '../../src/binding.ts';
import { loadBinding } from '../../src/native.ts';

const MACHINE = {
  memoryBytes: 2 ** 28,
  kernel: { image: '/vmlinux', format: 'elf' },
  shares: [] as ResolvedMachine['shares'],
} as ResolvedMachine;

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

test.serial('each share is a vhost-user device of virtio type 26 with two queues', async (t) => {
  machineWith({ start: fail });
  const { create } = binding.BindingMachine;
  const configs: unknown[] = [];
  binding.BindingMachine = {
    create: (config) => {
      configs.push(config.vhostUser);
      return create(config);
    },
  };
  await t.throwsAsync(kvm.start({ ...MACHINE, shares: [{ tag: 'fs0', socket: '/r/fs0' }] }));
  t.deepEqual(configs, [[{ socket: '/r/fs0', deviceType: 26, queues: 2, queueSize: 1024 }]]);
});

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
