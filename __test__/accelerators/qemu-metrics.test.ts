import test from 'ava';

import { qemuMetrics } from '../../src/accelerators/qemu/metrics.ts';

const QUEUE = { kicks: 1, interrupts: 2, buffers: 3, bytes: 4 };
const CPUS = [{ 'cpu-index': 0, 'thread-id': process.pid, target: 'x86_64' }];

test("the vsock device's thread counts for the machine, and devices stand in their order", async (t) => {
  const parts = { pid: process.pid, cpus: CPUS, shares: 2 };
  const without = await qemuMetrics({ ...parts, vsock: undefined });
  const metrics = await qemuMetrics({ ...parts, vsock: { cpuMs: 1e9, queues: [QUEUE] } });
  t.true(metrics.cpu.totalMs >= without.cpu.totalMs + 1e9);
  t.is(metrics.cpu.vcpusMs.length, 1);
  t.deepEqual(
    metrics.devices.map(({ type }) => type),
    ['vsock', 'rng', 'fs', 'fs'],
  );
  t.deepEqual(metrics.devices[0]?.queues, [QUEUE]);
  t.is(without.devices[0]?.queues, undefined);
  t.true(metrics.memory.residentBytes > metrics.memory.guestBytes);
});

test('an answer without threads is an error of its own', async (t) => {
  for (const cpus of [undefined, {}, [], [{}], [{ 'thread-id': 'x' }]]) {
    await t.throwsAsync(qemuMetrics({ pid: process.pid, cpus, vsock: undefined, shares: 0 }), {
      code: 'ERR_QEMU_FAILED',
    });
  }
});
