import test from 'ava';
import { MemoryRegion, MicroVMError } from '../../src/kvm/index.ts';
import { CODE, guest, MEMORY, testWithKvm } from '../helpers/real-mode-guest.ts';

const code = (code: string) => ({ instanceOf: MicroVMError, code });

test('bytes are read as they were written, up to the last one', (t) => {
  for (const region of [MemoryRegion.anonymous(8192), MemoryRegion.memfd(8192n)]) {
    t.is(region.length, 8192);
    region.write(8190, Uint8Array.of(1, 2));
    t.deepEqual(region.read(8189n, 3), Uint8Array.of(0, 1, 2));
    t.deepEqual(region.read(8192, 0), new Uint8Array());
    region.close();
  }
});

test('what is read is a copy', (t) => {
  const region = MemoryRegion.anonymous(4096);
  const copy = region.read(0, 4);
  region.write(0, Uint8Array.of(9));
  copy[1] = 7;
  t.deepEqual([...copy], [0, 7, 0, 0]);
  t.deepEqual([...region.read(0, 2)], [9, 0]);
});

test('access outside is refused whole', (t) => {
  const region = MemoryRegion.anonymous(4096);
  for (const [offset, length] of [
    [4095, 2],
    [4097, 0],
    [2n ** 64n - 1n, 1],
    [0, 2 ** 40],
  ] as const) {
    t.throws(() => region.read(offset, length), code('ERR_KVM_OUT_OF_BOUNDS'));
  }
  t.throws(() => region.write(4095, Uint8Array.of(1, 1)), code('ERR_KVM_OUT_OF_BOUNDS'));
  t.deepEqual(region.read(4095, 1), Uint8Array.of(0));
});

test('lengths that are zero, unaligned, absurd or no integers are refused', (t) => {
  for (const length of [0, 1, 4095, 4097]) {
    t.throws(() => MemoryRegion.anonymous(length), code('ERR_KVM_UNALIGNED'));
  }
  t.throws(() => MemoryRegion.memfd(4096, { hugePages: '2MiB' }), code('ERR_KVM_UNALIGNED'));
  t.throws(() => MemoryRegion.anonymous(2n ** 62n), { ...code('ERR_KVM_FAILED'), message: /mmap.*Cannot allocate/ });
  for (const length of [-4096, 1.5, Number.NaN, 2 ** 60, -1n, 2n ** 64n, '4096' as unknown as number]) {
    t.throws(() => MemoryRegion.anonymous(length), code('ERR_INVALID_OPTIONS'));
  }
  t.throws(() => MemoryRegion.memfd(4096, { hugePages: '3MiB' as '2MiB' }), code('ERR_INVALID_OPTIONS'));
});

test('only bytes can be written', (t) => {
  const region = MemoryRegion.anonymous(4096);
  t.throws(() => region.write(0, 'text' as unknown as Uint8Array), code('ERR_INVALID_OPTIONS'));
  region.write(0, Buffer.from('text'));
  t.is(Buffer.from(region.read(0, 4)).toString(), 'text');
});

test('a closed region says so', (t) => {
  const region = MemoryRegion.anonymous(4096);
  region[Symbol.dispose]();
  region.close();
  t.throws(() => region.read(0, 1), code('ERR_KVM_CLOSED'));
  t.is(region.length, 4096);
});

testWithKvm('a slot keeps a region that was closed', async (t) => {
  const { memory, runner } = guest(t, 0xf4);
  memory.close();
  t.is((await runner.run()).reason, 'hlt');
});

testWithKvm('overlapping, unaligned and foreign regions are refused', (t) => {
  const { vm } = guest(t, 0xf4);
  const region = MemoryRegion.anonymous(4096);
  const error = t.throws(
    () => vm.setGuestMemoryRegion({ slot: 3, guestAddress: CODE + MEMORY - 4096, region }),
    code('ERR_KVM_SLOT_OVERLAP'),
  );
  t.regex(error?.message ?? '', /slot 3 .* overlaps slot 0 .*KVM_SET_USER_MEMORY_REGION.*File exists/);
  t.throws(() => vm.setGuestMemoryRegion({ slot: 3, guestAddress: 1, region }), code('ERR_KVM_UNALIGNED'));
  t.throws(
    () => vm.setGuestMemoryRegion({ slot: 3, guestAddress: 2n ** 64n - 4096n, region }),
    code('ERR_KVM_UNALIGNED'),
  );
  t.throws(() => vm.setGuestMemoryRegion({ slot: -1, guestAddress: 0x10_0000, region }), code('ERR_INVALID_OPTIONS'));
  for (const wrong of [{}, undefined, 'memory']) {
    const slot = { slot: 3, guestAddress: 0x10_0000, region: wrong as MemoryRegion };
    t.throws(() => vm.setGuestMemoryRegion(slot), code('ERR_INVALID_OPTIONS'));
  }
  region.close();
  t.throws(() => vm.setGuestMemoryRegion({ slot: 3, guestAddress: 0x10_0000, region }), code('ERR_KVM_CLOSED'));
});

testWithKvm('a slot can be replaced, made read-only and removed', async (t) => {
  // next: mov al, [0x6000]; mov [0x6001], al; hlt; jmp next
  const { vm, runner } = guest(t, 0xa0, 0x00, 0x60, 0xa2, 0x01, 0x60, 0xf4, 0xeb, 0xf7);
  const al = () => runner.getRegs().rax & 0xffn;
  for (const value of [0x11, 0x22]) {
    const region = MemoryRegion.anonymous(4096);
    region.write(0, Uint8Array.of(value));
    vm.setGuestMemoryRegion({ slot: 1, guestAddress: 0x6000, region });
    t.is((await runner.run()).reason, 'hlt');
    t.is(al(), BigInt(value));
    t.deepEqual(region.read(1, 1), Uint8Array.of(value));
  }
  const region = MemoryRegion.anonymous(4096);
  vm.setGuestMemoryRegion({ slot: 1, guestAddress: 0x6000, region, readOnly: true });
  t.like(await runner.run(), { reason: 'mmio-write', address: 0x6001n });
  t.is((await runner.run()).reason, 'hlt');
  vm.removeGuestMemoryRegion(1);
  t.like(await runner.run(), { reason: 'mmio-read', address: 0x6000n });
  t.throws(() => vm.removeGuestMemoryRegion(1), { ...code('ERR_KVM_FAILED'), message: /slot 1 is not in use/ });
});
