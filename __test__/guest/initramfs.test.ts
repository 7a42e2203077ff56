import { execFile } from 'node:child_process';
import {
  chmod,
  link,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import test, { type ExecutionContext } from 'ava';
import { MicroVMError } from '../../src/errors.ts';
import { CpioWriter, MODE } from '../../src/guest/cpio.ts';
import { buildInitramfs, type Initramfs, type InitramfsRequest } from '../../src/guest/initramfs.ts';
import type { GuestKernel } from '../../src/guest/kernel.ts';
import { type ArchivedFile, readCpio } from '../helpers/read-cpio.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

const MIB = 2 ** 20;
const run = promisify(execFile);
const cache = await mkdtemp(join(tmpdir(), 'microvm-test-cache-'));
process.env['MICROVM_CACHE'] = cache;
test.after.always(() => rm(cache, { recursive: true, force: true }));

interface Fixture {
  readonly folder: string;
  readonly agent: string;
  /** Builds with a rootfs at a path under `folder`, or of a kind. */
  build(rootfs: string, more?: Partial<InitramfsRequest>): Promise<Initramfs>;
}

async function makeFixture(t: ExecutionContext): Promise<Fixture> {
  const folder = await temporaryFolder(t);
  const agent = join(folder, 'microvm-agent');
  await writeFile(agent, 'the agent');
  const kernel: GuestKernel = { image: '/k', format: 'bzImage', release: 'r', modules: undefined, source: 'option' };
  const build = async (rootfs: string, more: Partial<InitramfsRequest> = {}): Promise<Initramfs> => {
    const spec =
      rootfs === 'none' || rootfs === 'default'
        ? ({ kind: rootfs } as const)
        : ({ kind: 'path', path: join(folder, rootfs) } as const);
    const built = await buildInitramfs({
      kernel,
      rootfs: spec,
      transport: 'mmio',
      memoryBytes: 256 * MIB,
      agent,
      ...more,
    });
    t.teardown(() => built.release());
    return built;
  };
  return { folder, agent, build };
}

/** What the guest finds: later entries take the place of earlier ones. */
async function unpack({ path }: Initramfs): Promise<Map<string, ArchivedFile>> {
  return new Map(readCpio(await readFile(path)).map((file) => [file.name, file]));
}

const ownFiles = ['.', '.microvm', '.microvm/modules', 'dev', 'dev/console', 'dev/null', 'init'];

test("'none' holds the agent as /init and the first device nodes", async (t) => {
  const { build } = await makeFixture(t);
  const files = await unpack(await build('none'));
  t.deepEqual([...files.keys()].sort(), ownFiles);
  t.like(files.get('init'), { mode: MODE.file | 0o755 });
  t.is(files.get('init')?.content.toString(), 'the agent');
  t.like(files.get('dev/console'), { mode: MODE.characterDevice | 0o600, device: [5, 1] });
});

test('modules go in with numbers in the order of loading', async (t) => {
  const { folder, build } = await makeFixture(t);
  const modules = join(folder, 'modules');
  await mkdir(join(modules, 'k'), { recursive: true });
  for (const name of ['ring', 'virtio_mmio', 'vmw_vsock_virtio_transport']) {
    await writeFile(join(modules, 'k', `${name}.ko`), name);
  }
  await writeFile(
    join(modules, 'modules.dep'),
    'k/ring.ko:\nk/virtio_mmio.ko: k/ring.ko\nk/vmw_vsock_virtio_transport.ko: k/ring.ko\n',
  );
  const kernel: GuestKernel = { image: '/k', format: 'elf', release: 'r', modules, source: 'option' };
  const files = await unpack(await build('none', { kernel }));
  t.deepEqual(
    [...files.keys()].filter((name) => name.endsWith('.ko')),
    [
      '.microvm/modules/000-ring.ko',
      '.microvm/modules/001-virtio_mmio.ko',
      '.microvm/modules/002-vmw_vsock_virtio_transport.ko',
    ],
  );
  await rm(join(modules, 'k/ring.ko'));
  await t.throwsAsync(build('none', { kernel }), { code: 'ERR_KERNEL_MODULES', message: /ring\.ko.*ENOENT/ });
});

test('a folder is packed with its modes, links and hard links, all owned by root', async (t) => {
  const { folder, build } = await makeFixture(t);
  const root = join(folder, 'root');
  await mkdir(join(root, 'bin'), { recursive: true });
  await writeFile(join(root, 'bin/tool'), 'tool');
  await chmod(join(root, 'bin/tool'), 0o4711);
  await utimes(join(root, 'bin/tool'), 1000, 1000);
  await link(join(root, 'bin/tool'), join(root, 'bin/twin'));
  await symlink('/bin/tool', join(root, 'absolute'));
  await symlink('nowhere', join(root, 'dangling'));
  await run('mkfifo', [join(root, 'fifo')]);

  const files = await unpack(await build('root'));
  t.deepEqual([...files.keys()].filter((name) => !ownFiles.includes(name)).sort(), [
    'absolute',
    'bin',
    'bin/tool',
    'bin/twin',
    'dangling',
    'fifo',
  ]);
  const [tool, twin] = [files.get('bin/tool'), files.get('bin/twin')];
  t.like(tool, { mode: MODE.file | 0o4711, mtime: 1000, links: 2, owner: [0, 0] });
  t.is(tool?.content.toString(), 'tool');
  t.is(twin?.content.length, 0);
  t.is(twin?.id, tool?.id);
  t.is(files.get('absolute')?.content.toString(), '/bin/tool');
  t.is((files.get('fifo')?.mode ?? 0) & 0o170000, MODE.fifo);
});

test('nothing outside of a folder gets in by its links', async (t) => {
  const { folder, build } = await makeFixture(t);
  await mkdir(join(folder, 'root'));
  await mkdir(join(folder, 'secrets'));
  await writeFile(join(folder, 'secrets/key'), 'secret');
  await symlink('../secrets', join(folder, 'root/folder'));
  await symlink('../secrets/key', join(folder, 'root/file'));
  const { path } = await build('root');
  t.false((await readFile(path)).includes('secret\0') || (await readFile(path)).includes('folder/key'));
});

test("a user's own /init gives way to the agent, even when it is one file with another", async (t) => {
  const { folder, build } = await makeFixture(t);
  await mkdir(join(folder, 'root/bin'), { recursive: true });
  await writeFile(join(folder, 'root/bin/busybox'), 'busybox');
  await link(join(folder, 'root/bin/busybox'), join(folder, 'root/init'));
  const entries = readCpio(await readFile((await build('root')).path)).filter(({ name }) => name === 'init');
  t.deepEqual(
    entries.map(({ mode }) => mode & 0o170000),
    [MODE.file, MODE.symlink, MODE.file],
  );
  t.is(entries.at(-1)?.content.toString(), 'the agent');
});

test('names that are no UTF-8 are packed as they are', async (t) => {
  const { folder, build } = await makeFixture(t);
  await mkdir(join(folder, 'root'));
  await writeFile(Buffer.concat([Buffer.from(join(folder, 'root/')), Buffer.from([0xff, 0xfe])]), '');
  const { path } = await build('root');
  t.true((await readFile(path)).includes(Buffer.from([0xff, 0xfe, 0])));
});

test('a socket in a folder is refused by its path', async (t) => {
  const { folder, build } = await makeFixture(t);
  await mkdir(join(folder, 'root'));
  const server = createServer().listen(join(folder, 'root/sock'));
  await once(server, 'listening');
  t.teardown(() => server.close());
  await t.throwsAsync(build('root'), {
    code: 'ERR_ROOTFS_INVALID',
    message: /root\/sock into the initramfs: it is a socket/,
  });
});

test('an archive, plain or gzip, is unpacked and followed by ours', async (t) => {
  const { folder, build } = await makeFixture(t);
  const parts: Uint8Array[] = [];
  const writer = new CpioWriter(async (bytes) => void parts.push(Uint8Array.from(bytes)));
  await writer.add({ name: 'motd', mode: MODE.file | 0o644 }, Buffer.from('hello'));
  await writer.end();
  const plain = Buffer.concat(parts);
  await writeFile(join(folder, 'a.cpio'), plain);
  await writeFile(join(folder, 'a.cpio.gz'), gzipSync(plain));
  for (const name of ['a.cpio', 'a.cpio.gz']) {
    const files = await unpack(await build(name));
    t.is(files.get('motd')?.content.toString(), 'hello');
    t.is(files.get('init')?.content.toString(), 'the agent');
  }
  await writeFile(join(folder, 'cut.cpio.gz'), gzipSync(plain).subarray(0, 40));
  await t.throwsAsync(build('cut.cpio.gz'), { code: 'ERR_ROOTFS_INVALID', message: /gzip file \(Z_BUF_ERROR\)/ });
  await writeFile(join(folder, 'cut.cpio'), plain.subarray(0, 100));
  await t.throwsAsync(build('cut.cpio'), { code: 'ERR_ROOTFS_INVALID', message: /inside a header/ });
});

for (const [what, content, message] of [
  ['an empty file', Buffer.alloc(0), /is empty/],
  ['a zstd file', Buffer.from('28b52ffd00', 'hex'), /compressed with zstd/],
  ['a tar archive', Buffer.from(`${'x'.repeat(257)}ustar`), /a tar archive/],
  ['a text', Buffer.from('hello'), /of an unknown form/],
] as const) {
  test(`${what} as rootfs is refused by its name`, async (t) => {
    const { folder, build } = await makeFixture(t);
    await writeFile(join(folder, 'file'), content);
    await t.throwsAsync(build('file'), { code: 'ERR_ROOTFS_INVALID', message });
  });
}

test('a rootfs, userland or agent that is missing has its own code', async (t) => {
  const { folder, build } = await makeFixture(t);
  await t.throwsAsync(build('nothing'), { code: 'ERR_ROOTFS_MISSING', message: /does not exist/ });
  await t.throwsAsync(build('default'), { code: 'ERR_USERLAND_MISSING' });
  await t.throwsAsync(build('none', { agent: join(folder, 'nothing') }), { code: 'ERR_AGENT_MISSING' });
});

test('the second build is taken from the cache; a change of anything makes another', async (t) => {
  const { folder, agent, build } = await makeFixture(t);
  await mkdir(join(folder, 'root'));
  await writeFile(join(folder, 'root/a'), 'one');
  const first = await build('root');
  t.false(first.cached);
  t.like(await build('root'), { cached: true, path: first.path, bytes: first.bytes });

  await writeFile(join(folder, 'root/a'), 'two');
  const second = await build('root');
  t.false(second.cached);
  t.is((await unpack(second)).get('a')?.content.toString(), 'two');

  await rename(join(folder, 'root/a'), join(folder, 'root/b'));
  t.false((await build('root')).cached);
  await chmod(join(folder, 'root/b'), 0o600);
  t.false((await build('root')).cached);
  await writeFile(agent, 'another agent');
  t.false((await build('root')).cached);
  t.true((await build('root')).cached);
});

test('many who build the same at once all get it whole, and no part is left', async (t) => {
  const { folder, build } = await makeFixture(t);
  await mkdir(join(folder, 'root'));
  await writeFile(join(folder, 'root/large'), Buffer.alloc(3 * MIB, 'x'));
  const builds = await Promise.all(Array.from({ length: 8 }, () => build('root')));
  t.is(new Set(builds.map(({ path }) => path)).size, 1);
  const [first] = builds;
  if (!first) return t.fail();
  t.is((await unpack(first)).get('large')?.content.length, 3 * MIB);
});

test('what does not fit in memory is refused before it is packed, and leaves nothing', async (t) => {
  const { folder, build } = await makeFixture(t);
  await mkdir(join(folder, 'root'));
  await writeFile(join(folder, 'root/large'), Buffer.alloc(10 * MIB));
  const error = await t.throwsAsync(build('root', { memoryBytes: 64 * MIB }), {
    instanceOf: MicroVMError,
    code: 'ERR_INITRAMFS_TOO_LARGE',
    message: /11 MiB does not fit in 64 MiB/,
  });
  t.is(error.hint?.match(/'(\d+) MiB'/)?.[1], '79');
  const built = await build('root', { memoryBytes: 79 * MIB });
  // From the cache too: it depends on this machine's memory.
  await t.throwsAsync(build('root', { memoryBytes: 64 * MIB }), { code: 'ERR_INITRAMFS_TOO_LARGE' });
  t.true(built.bytes > 10 * MIB);
});

test.after('no build left an unfinished file', async (t) => {
  t.deepEqual(
    (await readdir(join(cache, 'initramfs'))).filter((name) => name.startsWith('.')),
    [],
  );
});

test('an archive that unpacks to more than fits is given up while it is unpacked', async (t) => {
  const { folder, build } = await makeFixture(t);
  const parts: Uint8Array[] = [];
  const writer = new CpioWriter(async (bytes) => void parts.push(Uint8Array.from(bytes)));
  await writer.add({ name: 'bomb', mode: MODE.file }, Buffer.alloc(30 * MIB));
  await writer.end();
  await writeFile(join(folder, 'bomb.gz'), gzipSync(Buffer.concat(parts)));
  await t.throwsAsync(build('bomb.gz', { memoryBytes: 64 * MIB }), { code: 'ERR_INITRAMFS_TOO_LARGE' });
});

test('an aborted signal ends the build with its own code', async (t) => {
  const { folder, build } = await makeFixture(t);
  await mkdir(join(folder, 'root'));
  await writeFile(join(folder, 'root/a'), '');
  const controller = new AbortController();
  const built = build('root', { signal: controller.signal });
  controller.abort(new Error('enough'));
  const error = await t.throwsAsync(built, { instanceOf: MicroVMError, code: 'ERR_ABORTED' });
  t.is((error.cause as Error).message, 'enough');
  await t.throwsAsync(build('root', { signal: AbortSignal.abort() }), { code: 'ERR_ABORTED' });
});
