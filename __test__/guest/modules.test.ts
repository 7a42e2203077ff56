import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { neededModules } from '../../src/guest/modules.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

async function makeModules(t: ExecutionContext, dependencies: string, builtIn?: string): Promise<string> {
  const folder = await temporaryFolder(t);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'modules.dep'), dependencies);
  if (builtIn !== undefined) await writeFile(join(folder, 'modules.builtin'), builtIn);
  return folder;
}

const DEBIAN = `kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio_mmio.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_pci_modern_dev.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_pci_modern_dev.ko:
kernel/net/vmw_vsock/vsock.ko:
kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko: kernel/drivers/virtio/virtio.ko kernel/net/vmw_vsock/vsock.ko
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko
`;

test('modules come after all they depend on, each once', async (t) => {
  const folder = await makeModules(t, DEBIAN);
  const modules = await neededModules(folder, 'mmio');
  t.deepEqual(
    modules.map((path) => path.slice(folder.length + 1).replace(/^.*\//, '')),
    ['virtio_ring.ko', 'virtio.ko', 'virtio_mmio.ko', 'vsock.ko', 'vmw_vsock_virtio_transport.ko', 'virtio-rng.ko'],
  );
});

test('the transport decides which bus is driven', async (t) => {
  const modules = await neededModules(await makeModules(t, DEBIAN), 'pci');
  t.true(modules.some((path) => path.endsWith('/virtio_pci.ko')));
  t.false(modules.some((path) => path.endsWith('/virtio_mmio.ko')));
});

test('built-in modules need no file', async (t) => {
  const builtIn = 'kernel/drivers/virtio/virtio_mmio.ko\nkernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko\n';
  t.deepEqual(await neededModules(await makeModules(t, '', builtIn), 'mmio'), []);
});

test('compressed modules and hyphens are the same modules', async (t) => {
  const folder = await makeModules(
    t,
    'a/virtio-mmio.ko.xz:\nb/vmw_vsock_virtio_transport.ko.zst: a/virtio-mmio.ko.xz\n',
  );
  t.deepEqual(await neededModules(folder, 'mmio'), [
    join(folder, 'a/virtio-mmio.ko.xz'),
    join(folder, 'b/vmw_vsock_virtio_transport.ko.zst'),
  ]);
});

test('modules that depend on each other in a circle end', async (t) => {
  const folder = await makeModules(t, 'virtio_mmio.ko: b.ko\nb.ko: virtio_mmio.ko\nvmw_vsock_virtio_transport.ko:\n');
  t.is((await neededModules(folder, 'mmio')).length, 3);
});

test('a kernel without the modules that the guest needs is refused', async (t) => {
  const folder = await makeModules(t, 'virtio_mmio.ko:\n');
  await t.throwsAsync(neededModules(folder, 'mmio'), {
    code: 'ERR_KERNEL_MODULES',
    message: /lack vmw_vsock_virtio_transport$/,
  });
  await t.throwsAsync(neededModules(folder, 'pci'), { message: /lack virtio_pci and vmw_vsock_virtio_transport$/ });
});

for (const [what, line] of [
  ['leads out of the folder', '../../virtio_mmio.ko:'],
  ['is absolute', '/lib/modules/virtio_mmio.ko:'],
  ['has a dependency that leads out of the folder', 'virtio_mmio.ko: a/../../b.ko'],
  ['has two colons', 'virtio_mmio.ko: b.ko: c.ko'],
] as const) {
  test(`a line of modules.dep that ${what} is refused`, async (t) => {
    const folder = await makeModules(t, `${DEBIAN}${line}\n`);
    await t.throwsAsync(neededModules(folder, 'mmio'), { code: 'ERR_KERNEL_MODULES', message: /malformed line/ });
  });
}

test('lines without a module are as good as absent', async (t) => {
  const folder = await makeModules(t, 'virtio_mmio.ko\n\n:\nvmw_vsock_virtio_transport.ko:\n');
  await t.throwsAsync(neededModules(folder, 'mmio'), { code: 'ERR_KERNEL_MODULES', message: /lack virtio_mmio$/ });
});

test('a folder without modules.dep is refused', async (t) => {
  await t.throwsAsync(neededModules(await temporaryFolder(t), 'mmio'), {
    code: 'ERR_KERNEL_MODULES',
    message: /Cannot read .*modules\.dep \(ENOENT\)/,
  });
});
