// What a machine tells about itself, for every accelerator.

import { randomBytes } from 'node:crypto';
import test from 'ava';

import type { DeviceMetrics, MachineMetrics, MicroVM, MicroVMOptions, QueueMetrics } from '../../../index.ts';
import type { AcceleratorName } from '../guest.ts';

const MIB = 2 ** 20;

/** Declares the tests, for a machine of one processor that another file's tests use. */
export function metricsBehaviours(
  accelerator: AcceleratorName,
  machine: () => MicroVM,
  vsock: MicroVMOptions['vsock'],
): void {
  test.serial('memory is told as the guest and as this host see it', async (t) => {
    const vm = machine();
    const { memoryBytes } = vm.info;
    const { guest, memory } = await vm.metrics();
    t.true(guest.memoryTotalBytes > memoryBytes / 2 && guest.memoryTotalBytes < memoryBytes);
    t.true(guest.memoryAvailableBytes > 0 && guest.memoryAvailableBytes < guest.memoryTotalBytes);
    t.true(memory.guestBytes > 20 * MIB && memory.guestBytes <= memoryBytes, `${memory.guestBytes}`);
    t.true(memory.residentBytes >= memory.guestBytes);
    t.is(memory.proportionalBytes === undefined, accelerator === 'kvm');

    // What the guest uses for the first time is taken from this host: more than all that it has used and freed before.
    const wanted = Math.floor(guest.memoryAvailableBytes * 0.75);
    await vm.exec('dd', ['if=/dev/zero', 'of=/dev/null', `bs=${wanted}`, 'count=1']);
    const more = (await vm.metrics()).memory;
    t.true(more.guestBytes > memory.guestBytes + 4 * MIB, `${memory.guestBytes}, then ${more.guestBytes}`);
    t.true(more.residentBytes > memory.residentBytes);
  });

  test.serial('work of the guest is processor time, and counts for the processor that does it', async (t) => {
    const vm = machine();
    const before = await vm.metrics();
    t.is(before.cpu.vcpusMs.length, 1);
    await vm.exec('i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done', { shell: true });
    const { cpu } = await vm.metrics();
    const [then = Number.NaN, now = Number.NaN] = [before.cpu.vcpusMs[0], cpu.vcpusMs[0]];
    t.true(now > then, `${then}, then ${now}`);
    t.true(cpu.totalMs > before.cpu.totalMs);
    // The system counts in hundredths of a second, for a process and its threads apart.
    t.true(cpu.totalMs > now - 20);
  });

  test.serial('bytes that pass the vsock are counted, with the notifications that it takes', async (t) => {
    const vm = machine();
    const before = await vm.metrics();
    t.deepEqual(
      before.devices.map(({ type }) => type),
      ['vsock', 'rng'],
    );
    const bytes = randomBytes(2 * MIB);
    const { stdout } = await vm.exec('cat', [], { stdin: bytes, encoding: 'buffer' });
    t.true(stdout.equals(bytes));
    const after = await vm.metrics();
    const [was, is] = [before, after].map(({ devices }) => devices[0]?.acknowledgedInterrupts);
    if (accelerator === 'tcg') t.deepEqual([was, is], [undefined, undefined]);
    else t.true((is ?? 0) > (was ?? 0));
    // Those of the kernel's device are between it and the guest's driver.
    if (vsock !== undefined && vsock !== 'unix') return t.is(after.devices[0]?.queues, undefined);
    const [receive, transmit, events] = growth(before, after);
    for (const queue of [receive, transmit]) {
      t.true(queue.bytes > bytes.length && queue.bytes < 2 * bytes.length, JSON.stringify(queue));
      // A buffer of the driver's holds 64 KiB at most, and each comes by a notification or together with others.
      t.true(queue.buffers >= bytes.length / 65_536 && queue.kicks > 0 && queue.kicks <= queue.buffers + 1);
      t.true(queue.interrupts > 0 && queue.interrupts <= queue.buffers);
    }
    t.deepEqual(events, { kicks: 0, interrupts: 0, buffers: 0, bytes: 0 });
  });

  test.serial('random bytes of the host are counted where our own device gives them', async (t) => {
    const vm = machine();
    const rng = (metrics: MachineMetrics): DeviceMetrics | undefined =>
      metrics.devices.find(({ type }) => type === 'rng');
    const before = rng(await vm.metrics());
    await vm.exec('head -c 100 /dev/hwrng > /dev/null', { shell: true });
    const after = rng(await vm.metrics());
    t.is(before?.queues === undefined, accelerator === 'tcg');
    if (accelerator === 'tcg') return;
    const [was, is] = [before?.queues?.[0], after?.queues?.[0]];
    t.true(is && was && is.bytes > was.bytes && is.buffers > was.buffers && is.kicks > was.kicks);
  });
}

/** What the vsock's queues did in between. */
function growth(before: MachineMetrics, after: MachineMetrics): [QueueMetrics, QueueMetrics, QueueMetrics] {
  const names = ['kicks', 'interrupts', 'buffers', 'bytes'] as const;
  const queues = after.devices[0]?.queues?.map((queue, index) => {
    const then = before.devices[0]?.queues?.[index];
    return Object.fromEntries(names.map((name) => [name, queue[name] - (then?.[name] ?? Number.NaN)]));
  });
  return queues as unknown as [QueueMetrics, QueueMetrics, QueueMetrics];
}
