import test from 'ava';
import { MicroVMError, Platform, platforms } from '../../src/ring3/index.ts';
import { ring3Test } from '../helpers/ring3.ts';

const code = (code: string, message?: RegExp) => ({ instanceOf: MicroVMError, code, ...(message && { message }) });

test('kvm is a platform', (t) => {
  t.true(platforms.list().includes('kvm'));
});

test('an unknown name is refused with the known ones, together with every wrong option', async (t) => {
  const wrong = { vcpus: 0, devicepath: '/dev/kvm' } as object;
  const error = (await t.throwsAsync(Platform.open('kvn', wrong), code('ERR_INVALID_OPTIONS'))) as MicroVMError;
  t.deepEqual(
    error.problems?.map(({ path, value }) => [path, value]),
    [
      ['name', "'kvn'"],
      ['vcpus', '0'],
      ['devicepath', "'/dev/kvm'"],
    ],
  );
  t.regex(error.problems?.[0]?.allowed ?? '', /one of 'kvm'; did you mean 'kvm'\?/);
  t.regex(error.problems?.[2]?.allowed ?? '', /devicePath/);
  await t.throwsAsync(Platform.open(7 as unknown as string), code('ERR_INVALID_OPTIONS', /name: 7/));
  await t.throwsAsync(Platform.open('kvm', null as unknown as object), code('ERR_INVALID_OPTIONS', /options: null/));
});

test('a device that is not there, or is another one, is an error with what to do', async (t) => {
  const missing = await t.throwsAsync(Platform.open('kvm', { devicePath: '/no/such/kvm' }), code('ERR_KVM_MISSING'));
  t.regex(missing?.message ?? '', /\/no\/such\/kvm/);
  t.truthy((missing as MicroVMError).hint);
  const other = await t.throwsAsync(Platform.open('kvm', { devicePath: '/dev/null' }), code('ERR_KVM_NOT_A_DEVICE'));
  t.regex((other as MicroVMError).hint ?? '', /\/dev\/kvm/);
});

ring3Test('a platform tells its facts', async (t) => {
  const platform = await Platform.open('kvm', { devicePath: '/dev/kvm', vcpus: 3 });
  t.teardown(() => platform.close());
  const { host, ...own } = platform.facts;
  t.deepEqual(own, {
    supportsAddressSpaceIo: false,
    cooperativelySchedulesAddressSpaces: false,
    detectsCpuPreemption: false,
    ownsPageTables: true,
    hasGlobalMemoryBarrier: true,
    mapUnit: 16 * 2 ** 20,
    minUserAddress: 4096n,
    maxUserAddress: 2n ** 47n - 4096n,
  });
  t.true(['ring0', 'ring3'].includes(host.syscallEntry));
  t.true(['before-exit', 'at-next-run'].includes(host.outCompletion));
});

ring3Test('a closed platform makes nothing more, and closing it again does nothing', async (t) => {
  const platform = await Platform.open('kvm');
  const memory = await platform.newMemory(4096);
  await platform.close();
  await platform.close();
  await t.throwsAsync(platform.newMemory(4096), code('ERR_RING3_CLOSED', /platform is closed/));
  await t.throwsAsync(platform.newAddressSpace(), code('ERR_RING3_CLOSED'));
  t.throws(() => platform.newContext(), code('ERR_RING3_CLOSED'));
  // What it has made goes on.
  memory.write(0, Uint8Array.of(7));
  t.deepEqual(memory.read(0, 1), Uint8Array.of(7));
  await memory.close();
});
