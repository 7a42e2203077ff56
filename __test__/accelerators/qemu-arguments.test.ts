import test from 'ava';

import type { ResolvedMachine } from '../../src/accelerators/accelerator.ts';
import { qemuArguments } from '../../src/accelerators/qemu/arguments.ts';

const machine: ResolvedMachine = {
  cpus: 2,
  memoryBytes: 256 * 2 ** 20,
  hugePages: false,
  kernel: { image: '/k/vmlinuz', format: 'bzImage', release: '6.1.0', modules: undefined, source: 'option' },
  initramfs: '/c/initramfs.cpio',
  commandLine: 'console=ttyS0 quiet',
  guestCid: 3,
  vsockSocket: '/r/vsock',
  deviceSocket: '/r/device',
  shares: [],
  kvmDevice: '/dev/kvm',
};
const wiring = { consoleFd: 3, qmpFd: 4, vsock: { backend: '/r/device' } };

function valueOf(args: readonly string[], name: string, start = ''): string | undefined {
  return args.find((value, index) => args[index - 1] === name && value.startsWith(start));
}

test('the machine is a q35, never the microvm one that hangs on busy hosts', (t) => {
  t.regex(valueOf(qemuArguments(machine, wiring), '-machine') ?? '', /^q35,/);
});

test('memory is a shared memfd of exactly the size, for the vsock device runs outside of QEMU', (t) => {
  const args = qemuArguments(machine, wiring);
  t.is(valueOf(args, '-m'), '262144K');
  t.is(valueOf(args, '-object'), 'memory-backend-memfd,id=ram,size=268435456,share=on');
  t.regex(valueOf(args, '-machine') ?? '', /memory-backend=ram/);
});

test('kernel, initramfs, command line and processors are the ones of the machine', (t) => {
  const args = qemuArguments(machine, wiring);
  t.is(valueOf(args, '-kernel'), '/k/vmlinuz');
  t.is(valueOf(args, '-initrd'), '/c/initramfs.cpio');
  t.is(valueOf(args, '-append'), 'console=ttyS0 quiet');
  t.is(valueOf(args, '-smp'), '2');
});

test('each share is a device with the tag by which the guest mounts it', (t) => {
  const args = qemuArguments({ ...machine, shares: [{ tag: 'fs0', socket: '/r,1/fs0', requestQueues: 3 }] }, wiring);
  t.is(valueOf(args, '-chardev', 'socket,id=fs0'), 'socket,id=fs0,path=/r,,1/fs0');
  t.is(
    valueOf(args, '-device', 'vhost-user-fs'),
    'vhost-user-fs-pci,chardev=fs0,tag=fs0,queue-size=1024,num-request-queues=3',
  );
});

test('QEMU starts stopped, ends on a reset, and may start no process of its own', (t) => {
  const args = qemuArguments(machine, wiring);
  t.true(args.includes('-S'));
  t.true(args.includes('-no-reboot'));
  t.regex(valueOf(args, '-sandbox') ?? '', /spawn=deny/);
});

test('console and control are inherited descriptors', (t) => {
  const args = qemuArguments(machine, wiring);
  t.is(valueOf(args, '-chardev', 'socket,id=console'), 'socket,id=console,fd=3');
  t.is(valueOf(args, '-chardev', 'socket,id=qmp'), 'socket,id=qmp,fd=4');
});

test('a comma in a path does not end the value', (t) => {
  const args = qemuArguments(machine, { ...wiring, vsock: { backend: '/r,x/device' } });
  t.is(valueOf(args, '-chardev', 'socket,id=vsock'), 'socket,id=vsock,path=/r,,x/device');
});

test("the kernel's vsock device is one more descriptor, and there is no other", (t) => {
  const args = qemuArguments({ ...machine, guestCid: 77 }, { ...wiring, vsock: { vhostFd: 5 } });
  t.is(valueOf(args, '-device', 'vhost-vsock-pci'), 'vhost-vsock-pci,guest-cid=77,vhostfd=5');
  t.is(valueOf(args, '-chardev', 'socket,id=vsock'), undefined);
});
