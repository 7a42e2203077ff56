// The stock kernel on machines of several sizes. Only kvm: under tcg the machine is QEMU's.

import test from 'ava';

import { bootGuest, PATIENCE_MS } from '../../helpers/guest.ts';

const boots = test.macro({
  exec: async (t, cpus: number, memory: string, leastMiB: number) => {
    const vm = await bootGuest(t, 'kvm', { cpus, memory });
    const { stdout } = await vm.exec('sh', ['-c', "nproc; awk '/MemTotal/{print int($2/1024)}' /proc/meminfo"]);
    const [processors, total] = stdout.trim().split('\n').map(Number);
    t.is(processors, cpus);
    t.true(total !== undefined && total >= leastMiB, `${total} MiB seen by the guest`);
    t.is((await vm.stop({ timeout: PATIENCE_MS })).reason, 'power-off');
  },
  title: (_, cpus, memory) => `the stock kernel boots with ${cpus} vCPU(s) and ${memory}`,
});

test.serial(boots, 1, '128MiB', 60);
test.serial(boots, 2, '256MiB', 180);
// Above 3 GiB the memory goes on behind the 32-bit hole.
test.serial(boots, 4, '4GiB', 3800);
