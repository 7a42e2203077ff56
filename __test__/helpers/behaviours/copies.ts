// Trees into a real guest and out of it, and its files watched, for every accelerator; from this process and from others.

import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmod,
  link,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'ava';

import { GuestFileError, MicroVM, MicroVMError, type MicroVMOptions } from '../../../index.ts';
import { type AcceleratorName, PATIENCE_MS, privateRuntimeFolder } from '../guest.ts';
import { MAIN, microvm } from './command-line.ts';

/** Declares the tests; one guest serves most of them, one after another. `words` are the options for `microvm run`. */
export function copyBehaviours(
  accelerator: AcceleratorName,
  options: MicroVMOptions = {},
  words: readonly string[] = [],
): void {
  privateRuntimeFolder();
  let vm: MicroVM;
  let home: string;

  test.before(async () => {
    home = await mkdtemp(join(tmpdir(), 'microvm-test-'));
    vm = await MicroVM.create({ accelerator, bootTimeout: PATIENCE_MS, name: 'box', ...options });
  });
  test.after.always(async () => {
    await vm?.kill();
    await rm(home, { recursive: true, force: true });
  });

  test.serial('a tree goes in and comes back with modes, links, holes and times', async (t) => {
    const tree = join(home, 'tree');
    await mkdir(join(tree, 'inner'), { recursive: true });
    await writeFile(join(tree, 'file'), 'content', { mode: 0o640 });
    await writeFile(join(tree, 'inner/large'), Buffer.alloc(3_000_000, 'large'));
    await writeFile(join(tree, 'inner', 'ü'.repeat(120)), 'a long name');
    await writeFile(join(tree, 'run'), '#!/bin/sh\necho ran\n', { mode: 0o4755 });
    await chmod(join(tree, 'run'), 0o4755);
    await link(join(tree, 'file'), join(tree, 'inner/same'));
    await symlink('../file', join(tree, 'inner/link'));
    const sparse = await open(join(tree, 'sparse'), 'w');
    await sparse.write('end', 60_000_000);
    await sparse.close();
    await utimes(join(tree, 'file'), 1.5, 1_234_567_890.125);
    await chmod(join(tree, 'inner'), 0o711);
    await utimes(join(tree, 'inner'), 1, 1_111_111_111.5);

    const copied = await vm.fs.copyIn(tree, '/tmp/tree');
    t.is(copied.entries, 9);
    const inGuest = await vm.fs.stat('/tmp/tree/file');
    t.like(inGuest, { mode: 0o100_640, mtimeMs: 1_234_567_890_125, nlink: 2, uid: 0 });
    t.is((await vm.fs.stat('/tmp/tree/inner/same')).ino, inGuest.ino);
    t.like(await vm.fs.stat('/tmp/tree/inner'), { mode: 0o40_711, mtimeMs: 1_111_111_111_500 });
    t.is(await vm.fs.readlink('/tmp/tree/inner/link'), '../file');
    t.is((await vm.fs.stat('/tmp/tree/run')).mode, 0o100_755, 'set-id bits go with the owner');
    t.is((await vm.exec('/tmp/tree/run')).stdout, 'ran\n');
    const { size, blocks } = await vm.fs.stat('/tmp/tree/sparse');
    t.is(size, 60_000_003);
    t.true(blocks < 1000, `${blocks} blocks`);

    t.deepEqual(await vm.fs.copyOut('/tmp/tree', join(home, 'back')), copied);
    execFileSync('diff', ['-r', tree, join(home, 'back')]);
    t.like(await stat(join(home, 'back/file')), { mode: 0o100_640, mtimeMs: 1_234_567_890_125, nlink: 2 });
    t.like(await stat(join(home, 'back/inner')), { mode: 0o40_711, mtimeMs: 1_111_111_111_500 });
    t.true((await stat(join(home, 'back/sparse'))).blocks < 1000);
  });

  test.serial('owners are kept when that is asked for', async (t) => {
    await vm.fs.writeFile('/tmp/own', 'x', { mode: 0o755 });
    await vm.fs.chown('/tmp/own', 1234, 2345);
    await vm.fs.chmod('/tmp/own', 0o4755);
    await vm.fs.copyOut('/tmp/own', join(home, 'own'));
    t.like(await stat(join(home, 'own')), { uid: process.getuid?.(), mode: 0o100_755 });
    if (process.getuid?.() !== 0) return;
    await vm.fs.copyOut('/tmp/own', join(home, 'own'), { preserveOwner: true });
    t.like(await stat(join(home, 'own')), { uid: 1234, gid: 2345, mode: 0o104_755 });
    await vm.fs.copyIn(join(home, 'own'), '/tmp/owned', { preserveOwner: true });
    t.like(await vm.fs.stat('/tmp/owned'), { uid: 1234, gid: 2345, mode: 0o104_755 });
    await vm.fs.copyIn(join(home, 'own'), '/tmp/ours');
    t.like(await vm.fs.stat('/tmp/ours'), { uid: 0, gid: 0, mode: 0o100_755 });
  });

  test.serial("what the guest's kernel refuses has its code and path, and nothing else suffers", async (t) => {
    await writeFile(join(home, 'large'), Buffer.alloc(3_000_000));
    await vm.exec('mkdir /tmp/small && mount -t tmpfs -o size=1m tmpfs /tmp/small', { shell: true });
    const full = await t.throwsAsync(vm.fs.copyIn(join(home, 'large'), '/tmp/small'), { instanceOf: GuestFileError });
    t.like(full, { code: 'ENOSPC', errno: -28, syscall: 'write', path: '/tmp/small/large' });
    const readOnly = await t.throwsAsync(vm.fs.copyIn(join(home, 'tree'), '/proc/none'), {
      instanceOf: GuestFileError,
    });
    t.like(readOnly, { code: 'ENOENT', path: '/proc/none' });
    const missing = await t.throwsAsync(vm.fs.copyOut('/no/such', home), { instanceOf: GuestFileError });
    t.like(missing, { code: 'ENOENT', path: '/no/such' });
    // A file that grows without end is copied as long as it was said to be, and devices do not reach this host.
    await t.throwsAsync(vm.fs.copyOut('/dev', join(home, 'dev')), {
      instanceOf: MicroVMError,
      code: 'ERR_COPY_REFUSED',
    });
    await vm.fs.copyOut('/proc/version', join(home, 'version'));
    t.is((await vm.exec('echo', ['fine'])).stdout, 'fine\n');
  });

  test.serial('what happens to files is told, at any depth, and ends with the loop', async (t) => {
    await vm.fs.mkdir('/tmp/watched/old', { recursive: true });
    const watcher = vm.fs.watch('/tmp/watched', { recursive: true });
    await watcher.ready;
    await vm.exec('echo x > /tmp/watched/old/a; mkdir -p /tmp/watched/new/inner', { shell: true });
    const seen = new Set<string>();
    for await (const { eventType, filename } of watcher) {
      seen.add(`${eventType} ${filename}`);
      if (filename === 'new/inner') await vm.fs.writeFile('/tmp/watched/new/inner/b', 'x');
      if (filename === 'new/inner/b' && eventType === 'change') break;
    }
    for (const event of ['rename old/a', 'change old/a', 'rename new', 'rename new/inner', 'change new/inner/b']) {
      t.true(seen.has(event), `${event} of ${[...seen].join(', ')}`);
    }
    t.deepEqual(await watcher.next(), { done: true, value: undefined });
  });

  test.serial('microvm cp reaches the machine from another process, both ways', async (t) => {
    const tree = join(home, 'tree');
    t.is(vm.name, 'box');
    const quiet = { stdout: '', stderr: '', exitCode: 0 };
    t.deepEqual(await microvm(['cp', tree, 'box:/tmp/by-cp']), quiet);
    t.deepEqual(await microvm(['cp', '--exclude', 'sparse', 'box:/tmp/by-cp/.', join(home, 'by-cp')]), quiet);
    t.deepEqual((await readdir(join(home, 'by-cp'))).sort(), ['file', 'inner', 'run']);
    const { stdout } = await microvm(['cp', '--json', join(tree, 'file'), 'box:/tmp/']);
    t.deepEqual(JSON.parse(stdout), { entries: 1, bytes: 7 });
  });

  test.serial('microvm cp takes and gives tar streams', async (t) => {
    const tree = join(home, 'tree');
    const line = `tar c -C '${tree}' file inner | '${process.execPath}' '${MAIN}' cp - box:/tmp/streamed && '${process.execPath}' '${MAIN}' cp box:/tmp/streamed - | tar t`;
    const listed = await new Promise<string>((resolve, reject) => {
      execFile('sh', ['-c', line], (error, text) => (error ? reject(error) : resolve(text)));
    });
    t.deepEqual(
      listed
        .split('\n')
        .filter((name) => !/[\\ü]/.test(name))
        .sort(),
      [
        '',
        'streamed/',
        'streamed/file',
        'streamed/inner/',
        'streamed/inner/large',
        'streamed/inner/link',
        'streamed/inner/same',
      ],
    );
    // A reader that has seen enough is no failure worth words.
    const cut = `{ '${process.execPath}' '${MAIN}' cp box:/tmp/tree - | head -c 100 >/dev/null; } 2>&1`;
    const words = await new Promise<string>((resolve) => {
      execFile('sh', ['-c', cut], (_error, stdout) => resolve(stdout));
    });
    t.is(words, '');
  });

  test.serial('microvm cp tells what the guest refuses, and which machines run', async (t) => {
    const tree = join(home, 'tree');
    const refused = await microvm(['cp', 'box:/no/such', home]);
    t.is(refused.exitCode, 125);
    t.regex(refused.stderr, /ENOENT.*\/no\/such/);
    const asData = await microvm(['cp', '--json', 'box:/no/such', home]);
    t.like(JSON.parse(asData.stdout), { error: { code: 'ERR_AGENT_REFUSED', errno: 'ENOENT', path: '/no/such' } });
    const large = await microvm(['cp', '--json', '--max-bytes', '1KiB', 'box:/bin', join(home, 'bin')]);
    t.like(JSON.parse(large.stdout), { error: { code: 'ERR_COPY_LIMIT' } });
    const unknown = await microvm(['cp', tree, 'bux:/tmp']);
    t.is(unknown.exitCode, 125);
    t.regex(unknown.stderr, /No running machine is named bux .*ERR_MACHINE_NOT_FOUND/);
    t.regex(unknown.stderr, /Did you mean box\? Running: box\./);
  });

  test.serial('microvm run --name names a machine, once, until it has ended', async (t) => {
    const run = ['run', '--accelerator', accelerator, '--boot-timeout', `${PATIENCE_MS}`, ...words, '--name'];
    const taken = await microvm([...run, 'box', '--', 'true']);
    t.is(taken.exitCode, 125);
    t.regex(taken.stderr, /ERR_MACHINE_NAME_TAKEN/);
    t.regex((await microvm([...run, 'no/name', '--', 'true'])).stderr, /name: 'no\/name' is not allowed/);
    const child = spawn(process.execPath, [MAIN, ...run, 'other', '--', 'sh', '-c', 'echo up; sleep 1000'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.teardown(() => child.kill('SIGKILL'));
    const exited = once(child, 'exit');
    await once(createInterface(child.stdout), 'line');
    t.is((await microvm(['cp', 'other:/etc/passwd', join(home, 'passwd')])).exitCode, 0);
    t.regex(await readFile(join(home, 'passwd'), 'utf8'), /^root:/m);
    child.kill('SIGKILL');
    await exited;
    t.regex((await microvm(['cp', 'other:/etc/passwd', home])).stderr, /is gone.*ERR_MACHINE_EXITED/s);
  });
}
