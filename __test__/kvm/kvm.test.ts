import { closeSync, openSync } from 'node:fs';
import test from 'ava';
import { type ExtensionName, Kvm, MicroVMError } from '../../src/kvm/index.ts';
import { loadBinding } from '../../src/native.ts';
import { testWithKvm } from '../helpers/real-mode-guest.ts';

const code = (code: string) => ({ instanceOf: MicroVMError, code });

testWithKvm('the device opens by default, by path and by descriptor, which stays the caller’s', (t) => {
  const fd = openSync('/dev/kvm', 'r+');
  for (const options of [{}, { path: '/dev/kvm' }, { fd }, { fd }]) {
    const kvm = Kvm.open(options);
    t.is(kvm.apiVersion, 12);
    t.true(kvm.vcpuMmapSize >= 4096);
    kvm.close();
  }
  closeSync(fd);
});

test('a missing device is told from a wrong one', (t) => {
  const missing = t.throws(() => Kvm.open({ path: '/nonexistent/kvm' }), code('ERR_KVM_MISSING'));
  t.regex(missing?.message ?? '', /\/nonexistent\/kvm.*open.*No such file/);
  t.truthy((missing as MicroVMError).hint);
  for (const path of ['/dev/null', '/dev/zero', '/etc/hostname']) {
    t.throws(() => Kvm.open({ path }), code('ERR_KVM_NOT_A_DEVICE'), path);
  }
  // A folder cannot be opened for writing, so it does not get as far.
  t.throws(() => Kvm.open({ path: '/tmp' }), { ...code('ERR_KVM_FAILED'), message: /Is a directory/ });
});

test('a descriptor of something else is refused and left open', (t) => {
  const fd = openSync('/proc/self/exe', 'r');
  const error = t.throws(() => Kvm.open({ fd }), code('ERR_KVM_NOT_A_DEVICE'));
  t.regex(error?.message ?? '', /a regular file/);
  closeSync(fd);

  const [near, far] = loadBinding().socketPair();
  t.regex(t.throws(() => Kvm.open({ fd: near }), code('ERR_KVM_NOT_A_DEVICE'))?.message ?? '', /a socket/);
  closeSync(near);
  closeSync(far);
});

test('options that make no sense are refused', (t) => {
  for (const options of [{ path: '/dev/kvm', fd: 0 }, { fd: -1 }, { fd: 1.5 }, { fd: Number.NaN }]) {
    t.throws(() => Kvm.open(options), code('ERR_INVALID_OPTIONS'));
  }
  t.throws(() => Kvm.open({ path: 7 as unknown as string }), code('ERR_INVALID_OPTIONS'));
  t.throws(() => Kvm.open({ path: '/dev/kvm\0' }), { instanceOf: MicroVMError });
});

testWithKvm('extensions are asked for by name or number and answered by an integer', (t) => {
  const kvm = Kvm.open();
  const vm = kvm.createVm();
  for (const asked of [kvm, vm]) {
    t.true(asked.checkExtension('KVM_CAP_NR_MEMSLOTS') > 1);
    t.is(asked.checkExtension('KVM_CAP_NR_MEMSLOTS'), asked.checkExtension(10));
    t.is(asked.checkExtension(2 ** 31 - 1), 0);
    for (const wrong of ['KVM_CAP_TEA', 'toString', -1, 1.5, 2 ** 31]) {
      t.throws(() => asked.checkExtension(wrong as ExtensionName), code('ERR_INVALID_OPTIONS'));
    }
  }
  kvm.close();
});

testWithKvm('supported CPUID and register numbers are lists', (t) => {
  const kvm = Kvm.open();
  const [first] = kvm.supportedCpuid();
  t.like(first, { function: 0, index: 0 });
  t.true(kvm.msrIndexList().includes(0x10));
});

testWithKvm('a closed device says so, and closes again without complaint', (t) => {
  const kvm = Kvm.open();
  kvm.close();
  kvm.close();
  t.throws(() => kvm.createVm(), { ...code('ERR_KVM_CLOSED'), message: /KVM device is closed/ });
  t.throws(() => kvm.apiVersion, code('ERR_KVM_CLOSED'));
});

testWithKvm('disposing closes', async (t) => {
  const kvm = Kvm.open();
  kvm[Symbol.dispose]();
  t.throws(() => kvm.apiVersion, code('ERR_KVM_CLOSED'));
  const vm = Kvm.open().createVm();
  await vm[Symbol.asyncDispose]();
  t.throws(() => vm.createVcpu(0), code('ERR_KVM_CLOSED'));
});
