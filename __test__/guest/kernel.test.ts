import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { release as hostRelease } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { MicroVMError } from '../../src/errors.ts';
import { inspectKernel } from '../../src/guest/kernel-image.ts';
import { findKernel } from '../../src/guest/kernel.ts';
import { bzImage, vmlinux } from '../helpers/kernels.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

const isRoot = process.getuid?.() === 0;

const inspected = test.macro({
  async exec(t, content: Buffer, expected: object) {
    const path = join(await temporaryFolder(t), 'kernel');
    await writeFile(path, content);
    t.deepEqual(await inspectKernel(path), expected);
  },
  title: (providedTitle) => `${providedTitle} is a kernel`,
});

const refused = test.macro({
  async exec(t, content: Buffer | string, code: string, message: RegExp) {
    const path = join(await temporaryFolder(t), 'kernel');
    await writeFile(path, content);
    await t.throwsAsync(inspectKernel(path), { instanceOf: MicroVMError, code, message });
  },
  title: (providedTitle) => `${providedTitle} is refused`,
});

function arm64Image(): Buffer {
  const image = Buffer.alloc(4096);
  image.write('MZ', 0, 'latin1');
  image.write('ARM\x64', 0x38, 'latin1');
  return image;
}

function peImage(machine: number): Buffer {
  const image = Buffer.alloc(4096);
  image.write('MZ', 0, 'latin1');
  image.writeUInt32LE(0x80, 0x3c);
  image.write('PE\0\0', 0x80, 'latin1');
  image.writeUInt16LE(machine, 0x84);
  return image;
}

test('a bzImage', inspected, bzImage(), { format: 'bzImage', release: '6.1.0-test' });
test('a bzImage with a longer release', inspected, bzImage({ release: '6.1.0-56-cloud-amd64+x~1' }), {
  format: 'bzImage',
  release: '6.1.0-56-cloud-amd64+x~1',
});
test('a vmlinux', inspected, vmlinux(), { format: 'elf', release: '6.1.0-test' });
test('a vmlinux whose banner lies across two reads', inspected, vmlinux({ padding: 2 ** 20 - 160 }), {
  format: 'elf',
  release: '6.1.0-test',
});
test('a vmlinux without a banner', inspected, vmlinux({ release: '' }), { format: 'elf', release: undefined });

test('an empty file', refused, '', 'ERR_KERNEL_TRUNCATED', /empty/);
test('a short file', refused, 'vmlinuz', 'ERR_KERNEL_INVALID', /too short/);
test('a text', refused, 'hello '.repeat(100), 'ERR_KERNEL_INVALID', /neither a bzImage nor an ELF/);
test('a bzImage cut in its header', refused, bzImage().subarray(0, 0x220), 'ERR_KERNEL_TRUNCATED', /inside its header/);
test(
  'a bzImage cut before its header',
  refused,
  bzImage().subarray(0, 256),
  'ERR_KERNEL_TRUNCATED',
  /inside its header/,
);
test('a bzImage that lacks a byte', refused, bzImage().subarray(0, -1), 'ERR_KERNEL_TRUNCATED', /34303 of 34304 bytes/);
test('a 32-bit bzImage', refused, bzImage({ is64Bit: false }), 'ERR_KERNEL_ARCHITECTURE', /32-bit/);
test('a zImage', refused, bzImage({ isLoadedHigh: false }), 'ERR_KERNEL_INVALID', /zImage/);
test('an arm64 Image', refused, arm64Image(), 'ERR_KERNEL_ARCHITECTURE', /arm64, not for x86_64/);
test('an arm64 EFI image', refused, peImage(0xaa64), 'ERR_KERNEL_ARCHITECTURE', /arm64/);
test('an EFI program', refused, peImage(0x8664), 'ERR_KERNEL_INVALID', /EFI program/);
test('an arm64 vmlinux', refused, vmlinux({ machine: 183 }), 'ERR_KERNEL_ARCHITECTURE', /arm64/);
test(
  'a vmlinux of an unknown machine',
  refused,
  vmlinux({ machine: 999 }),
  'ERR_KERNEL_ARCHITECTURE',
  /ELF machine 999/,
);
test('a program', refused, vmlinux({ type: 3 }), 'ERR_KERNEL_INVALID', /a program or a library/);
test('a vmlinux that lacks a byte', refused, vmlinux().subarray(0, -1), 'ERR_KERNEL_TRUNCATED', /bytes/);
test(
  'a vmlinux cut in its program headers',
  refused,
  vmlinux().subarray(0, 100),
  'ERR_KERNEL_TRUNCATED',
  /program headers/,
);
test('a gzip file', refused, Buffer.from('1f8b0800'.padEnd(200, '0'), 'hex'), 'ERR_KERNEL_INVALID', /gzip/);

test('damaged kernels give a kernel or a MicroVMError', async (t) => {
  const path = join(await temporaryFolder(t), 'kernel');
  const damage = fc.array(fc.tuple(fc.integer({ min: 0, max: 0x300 }), fc.integer({ min: 0, max: 255 })), {
    maxLength: 12,
  });
  await fc.assert(
    fc.asyncProperty(fc.boolean(), damage, fc.nat({ max: 4000 }), async (isElf, bytes, cut) => {
      const content = isElf ? vmlinux({ padding: 1000 }) : bzImage();
      for (const [at, byte] of bytes) content[at] = byte;
      await writeFile(path, content.subarray(0, content.length - cut));
      await inspectKernel(path).catch((error: unknown) => t.true(error instanceof MicroVMError, String(error)));
    }),
    { numRuns: 300 },
  );
});

test('a kernel that is missing, a folder, or not readable has its own code', async (t) => {
  const folder = await temporaryFolder(t);
  await t.throwsAsync(inspectKernel(join(folder, 'none')), { code: 'ERR_KERNEL_MISSING' });
  await t.throwsAsync(inspectKernel(folder), { code: 'ERR_KERNEL_INVALID', message: /a folder/ });
  if (isRoot) return;
  const path = join(folder, 'secret');
  await writeFile(path, bzImage());
  await chmod(path, 0);
  await t.throwsAsync(inspectKernel(path), { code: 'ERR_KERNEL_UNREADABLE' });
});

/** A cache and a /boot of the test's own. */
async function makePlaces(t: Parameters<typeof temporaryFolder>[0]): Promise<{
  cache: string;
  boot: string;
  places: { env: NodeJS.ProcessEnv; boot: string };
}> {
  const folder = await temporaryFolder(t);
  const [cache, boot] = [join(folder, 'cache'), join(folder, 'boot')];
  await mkdir(join(cache, 'guest', 'debian-1'), { recursive: true });
  await mkdir(boot);
  await symlink('debian-1', join(cache, 'guest', 'current'));
  return { cache, boot, places: { env: { MICROVM_CACHE: cache }, boot } };
}

test('without any kernel the error lists all places', async (t) => {
  const { boot, places } = await makePlaces(t);
  await writeFile(join(boot, `vmlinuz-${hostRelease()}`), 'not a kernel');
  const error = await t.throwsAsync(findKernel(undefined, places), {
    instanceOf: MicroVMError,
    code: 'ERR_KERNEL_NOT_FOUND',
  });
  t.is(error.lookedAt?.length, 4);
  t.regex(
    error.message,
    /the kernel option: not given\n.*MICROVM_KERNEL: not set\n.*current\/vmlinuz: not there\n.*vmlinuz-.*not a kernel/,
  );
});

test('the option comes before the environment, the environment before the cache, the cache before /boot', async (t) => {
  const { cache, boot, places } = await makePlaces(t);
  const inBoot = join(boot, `vmlinuz-${hostRelease()}`);
  await writeFile(inBoot, bzImage({ release: 'boot' }));
  t.like(await findKernel(undefined, places), { source: 'boot', image: inBoot, release: 'boot' });
  await writeFile(join(cache, 'guest/debian-1/vmlinuz'), bzImage({ release: 'cache' }));
  t.like(await findKernel(undefined, places), { source: 'cache', release: 'cache' });
  const named = join(boot, 'named');
  await writeFile(named, bzImage({ release: 'named' }));
  const env = { ...places.env, MICROVM_KERNEL: named };
  t.like(await findKernel(undefined, { ...places, env }), { source: 'environment', release: 'named' });
  t.like(await findKernel({ image: inBoot, modules: undefined }, { ...places, env }), {
    source: 'option',
    release: 'boot',
  });
});

test('a wrong kernel that was asked for is an error, whatever else there is', async (t) => {
  const { cache, boot, places } = await makePlaces(t);
  await writeFile(join(cache, 'guest/debian-1/vmlinuz'), bzImage());
  const env = { ...places.env, MICROVM_KERNEL: join(boot, 'none') };
  await t.throwsAsync(findKernel(undefined, { ...places, env }), { code: 'ERR_KERNEL_MISSING' });
});

test('modules are found beside the image, or beside its boot folder', async (t) => {
  const { cache, boot, places } = await makePlaces(t);
  const image = join(boot, 'vmlinuz');
  await writeFile(image, bzImage({ release: 'r-1' }));
  t.is((await findKernel({ image, modules: undefined }, places)).modules, undefined);
  const besideBoot = join(cache, '..', 'lib/modules/r-1');
  await mkdir(besideBoot, { recursive: true });
  await writeFile(join(besideBoot, 'modules.dep'), '');
  t.is((await findKernel({ image, modules: undefined }, places)).modules, besideBoot);
  const besideImage = join(boot, 'modules/r-1');
  await mkdir(besideImage, { recursive: true });
  await writeFile(join(besideImage, 'modules.dep'), '');
  t.is((await findKernel({ image, modules: undefined }, places)).modules, besideImage);
});

test('a modules folder may be the one of the release or the one above', async (t) => {
  const { boot, places } = await makePlaces(t);
  const image = join(boot, 'vmlinux');
  await writeFile(image, vmlinux({ release: 'r-1' }));
  const inner = join(boot, 'modules/r-1');
  await mkdir(inner, { recursive: true });
  await writeFile(join(inner, 'modules.dep'), '');
  for (const modules of [inner, join(boot, 'modules')]) {
    t.is((await findKernel({ image, modules }, places)).modules, inner);
  }
  await t.throwsAsync(findKernel({ image, modules: boot }, places), {
    code: 'ERR_KERNEL_MODULES',
    message: /no readable modules\.dep, and no r-1\/modules\.dep/,
  });
});
