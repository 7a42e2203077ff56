// Files of a real guest, for every accelerator: the names and the errors are those of `node:fs/promises`.

import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import test from 'ava';

import { GuestFileError, MicroVM, type MicroVMOptions } from '../../../index.ts';
import { type AcceleratorName, PATIENCE_MS, privateRuntimeFolder } from '../guest.ts';

/** Declares the tests; one guest serves them all, one after another. */
export function fileBehaviours(accelerator: AcceleratorName, options: MicroVMOptions = {}): void {
  privateRuntimeFolder();
  let vm: MicroVM;

  test.before(async () => {
    vm = await MicroVM.create({ accelerator, bootTimeout: PATIENCE_MS, ...options });
  });
  test.after.always(async () => {
    await vm?.kill();
  });

  const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, index) => (index * 31) % 256));

  test.serial('a file is written, appended to and read back, text and bytes', async (t) => {
    await vm.fs.writeFile('/tmp/text', 'grüße\n');
    await vm.fs.appendFile('/tmp/text', 'more');
    t.is(await vm.fs.readFile('/tmp/text', 'utf8'), 'grüße\nmore');
    t.is((await vm.exec('cat', ['/tmp/text'])).stdout, 'grüße\nmore');
    await vm.fs.writeFile('/tmp/bytes', bytes, { mode: 0o600 });
    t.deepEqual(await vm.fs.readFile('/tmp/bytes'), bytes);
    const { stdout } = await vm.exec('sha256sum', ['/tmp/bytes']);
    t.is(stdout.split(' ')[0], createHash('sha256').update(bytes).digest('hex'));
    await vm.fs.writeFile('/tmp/bytes', '');
    t.is((await vm.fs.readFile('/tmp/bytes')).length, 0);
    const name = "/tmp/ a&b=c?#%'ü\n";
    await vm.fs.writeFile(name, 'odd');
    t.is(await vm.fs.readFile(name, { encoding: 'utf8' }), 'odd');
    t.regex(await vm.fs.readFile('/proc/version', 'utf8'), /^Linux version/);
  });

  test.serial('streams carry parts, any source is written, and a flag decides what was there', async (t) => {
    await vm.fs.writeFile('/tmp/part', Readable.from([Buffer.from('0123'), Buffer.from('456789')]));
    const read = async (start?: number, end?: number): Promise<string> =>
      (await vm.fs.createReadStream('/tmp/part', { start, end }).toArray()).join('');
    t.deepEqual(await Promise.all([read(2, 4), read(7), read(0, 0), read(20), read(8, 99)]), [
      '234',
      '789',
      '0',
      '',
      '89',
    ]);
    await pipeline(
      Readable.from([Buffer.from('abc')]),
      vm.fs.createWriteStream('/tmp/part', { flags: 'r+', start: 3 }),
    );
    t.is(await read(), '012abc6789');
    const taken = await t.throwsAsync(vm.fs.writeFile('/tmp/part', 'x', { flag: 'wx' }), {
      instanceOf: GuestFileError,
    });
    t.is(taken?.code, 'EEXIST');
    t.is(await read(), '012abc6789');
  });

  test.serial('a large file goes both ways, and a reader that leaves early ends nothing else', async (t) => {
    const size = 8 * 1024 * 1024;
    await vm.fs.writeFile('/tmp/large', Buffer.alloc(size, 'z'));
    t.is((await vm.fs.stat('/tmp/large')).size, size);
    for await (const piece of vm.fs.createReadStream('/tmp/large')) {
      t.true((piece as Buffer).length > 0);
      break;
    }
    let length = 0;
    for await (const piece of vm.fs.createReadStream('/tmp/large')) length += (piece as Buffer).length;
    t.is(length, size);
    await vm.fs.rm('/tmp/large');
  });

  test.serial('folders are made, listed and removed', async (t) => {
    t.is(await vm.fs.mkdir('/tmp/a/b/c', { recursive: true }), '/tmp/a');
    t.is(await vm.fs.mkdir('/tmp/a/b/c', { recursive: true }), undefined);
    await vm.fs.writeFile('/tmp/a/file', '');
    await vm.fs.symlink('b/c', '/tmp/a/link');
    t.deepEqual(await vm.fs.readdir('/tmp/a'), ['b', 'file', 'link']);
    t.deepEqual(await vm.fs.readdir('/tmp/a', { recursive: true }), ['b', 'b/c', 'file', 'link']);
    const entries = await vm.fs.readdir('/tmp/a', { withFileTypes: true, recursive: true });
    t.deepEqual(
      entries.map((entry) => [
        entry.parentPath,
        entry.name,
        entry.isDirectory(),
        entry.isFile(),
        entry.isSymbolicLink(),
      ]),
      [
        ['/tmp/a', 'b', true, false, false],
        ['/tmp/a/b', 'c', true, false, false],
        ['/tmp/a', 'file', false, true, false],
        ['/tmp/a', 'link', false, false, true],
      ],
    );
    await vm.fs.rename('/tmp/a', '/tmp/moved');
    t.is(await vm.fs.readlink('/tmp/moved/link'), 'b/c');
    await vm.fs.rm('/tmp/moved', { recursive: true });
    await vm.fs.rm('/tmp/moved', { recursive: true, force: true });
    await t.throwsAsync(vm.fs.stat('/tmp/moved'), { code: 'ENOENT' });
  });

  test.serial('status, permissions, owners and times are told and set', async (t) => {
    await vm.fs.writeFile('/tmp/own', '12345', { mode: 0o640 });
    await vm.fs.chown('/tmp/own', 1000, 1001);
    await vm.fs.chmod('/tmp/own', (await vm.fs.stat('/tmp/own')).mode | 0o4111);
    await vm.fs.utimes('/tmp/own', new Date('2001-02-03T04:05:06.789Z'), -1.5);
    const stats = await vm.fs.stat('/tmp/own');
    t.like(stats, { size: 5, uid: 1000, gid: 1001, mode: 0o104_751, nlink: 1, mtimeMs: -1500 });
    t.is(stats.atime.toISOString(), '2001-02-03T04:05:06.789Z');
    t.true(stats.isFile());
    await vm.fs.symlink('/tmp/own', '/tmp/to-own');
    t.true((await vm.fs.lstat('/tmp/to-own')).isSymbolicLink());
    t.is((await vm.fs.stat('/tmp/to-own')).ino, stats.ino);
    t.true((await vm.fs.stat('/dev/null')).isCharacterDevice());
    await vm.exec('mkfifo', ['/tmp/fifo']);
    t.true((await vm.fs.stat('/tmp/fifo')).isFIFO());
  });

  test.serial("errors have node:fs's codes and the guest's paths", async (t) => {
    const fails = async (work: Promise<unknown>, fields: Partial<GuestFileError>): Promise<void> => {
      const error = await t.throwsAsync(work, { instanceOf: GuestFileError });
      t.like(error, fields);
    };
    await fails(vm.fs.readFile('/no/such'), { code: 'ENOENT', errno: -2, syscall: 'open', path: '/no/such' });
    await fails(vm.fs.writeFile('/no/such', 'x'), { code: 'ENOENT', path: '/no/such' });
    await fails(vm.fs.writeFile('/no/such', Buffer.alloc(5_000_000)), { code: 'ENOENT', path: '/no/such' });
    await fails(vm.fs.readFile('/tmp'), { code: 'EISDIR' });
    // They open, and what is read or written fails: a process has nothing at its first address, that device is full.
    await fails(vm.fs.readFile('/proc/self/mem'), { code: 'EIO', errno: -5, syscall: 'read', path: '/proc/self/mem' });
    await fails(vm.fs.writeFile('/dev/full', 'x'), { code: 'ENOSPC', syscall: 'write', path: '/dev/full' });
    await fails(vm.fs.unlink('/tmp'), { code: 'EISDIR', syscall: 'unlink', path: '/tmp' });
    await fails(vm.fs.truncate('/no/such'), { code: 'ENOENT', syscall: 'open' });
    await fails(vm.fs.access('/no/such'), { code: 'ENOENT', syscall: 'access' });
    await fails(vm.fs.mkdtemp('/no/such'), { code: 'ENOENT', syscall: 'mkdtemp', path: '/no/suchXXXXXX' });
    await fails(vm.fs.readdir('/etc/passwd'), { code: 'ENOTDIR', syscall: 'scandir' });
    await fails(vm.fs.mkdir('/tmp'), { code: 'EEXIST' });
    await fails(vm.fs.rm('/tmp'), { code: 'EISDIR' });
    await fails(vm.fs.rename('/no/such', '/tmp/x'), { code: 'ENOENT', path: '/no/such', dest: '/tmp/x' });
    await fails(vm.fs.writeFile('/init', 'x', { flag: 'r+' }), { code: 'ETXTBSY' });
    await fails(vm.fs.writeFile('/proc/version', 'x'), { code: 'EIO' });
    await fails(vm.fs.writeFile('/tmp/fifo', 'x'), { code: 'ENXIO' });
    t.is((await vm.fs.readFile('/tmp/fifo')).length, 0, 'a FIFO without a writer is not waited for');
    const error = await t.throwsAsync(vm.fs.stat('/no/such'), { instanceOf: GuestFileError });
    t.is(error?.message, "ENOENT: No such file or directory, stat '/no/such'");
  });

  test.serial('a content that ends in a failure gives what came before', async (t) => {
    // What is mapped is read; behind it there is nothing.
    const maps = await vm.fs.readFile('/proc/1/maps', 'utf8');
    const [, first = '', last = ''] = /^([0-9a-f]+)-([0-9a-f]+) r/m.exec(maps) ?? [];
    const [start, end] = [Number.parseInt(first, 16), Number.parseInt(last, 16)];
    const whole = await vm.fs.createReadStream('/proc/1/mem', { start, end: end - 1 }).toArray();
    t.is(Buffer.concat(whole).length, end - start);
    let length = 0;
    const reading = async (): Promise<void> => {
      for await (const piece of vm.fs.createReadStream('/proc/1/mem', { start: end - 4096 })) {
        length += (piece as Buffer).length;
      }
    };
    const error = await t.throwsAsync(reading(), { instanceOf: GuestFileError });
    t.like(error, { code: 'EIO', syscall: 'read', path: '/proc/1/mem' });
    t.true(length >= 4096 && length % 4096 === 0, `${length} bytes`);
  });

  test.serial('a FIFO is waited for, by its reader and by its writer', async (t) => {
    // Somebody is left behind who holds both ends open, so that none is missing, and says something later.
    await vm.exec('mkfifo /tmp/way; exec 3<>/tmp/way; (sleep 1; echo late >&3; sleep 1000) &', { shell: true });
    for await (const piece of vm.fs.createReadStream('/tmp/way')) {
      t.is(String(piece), 'late\n');
      break;
    }
    // More than it has room for.
    const taking = vm.exec('sleep 1; head -c 300000 /tmp/way | wc -c', { shell: true });
    await vm.fs.writeFile('/tmp/way', bytes);
    t.is((await taking).stdout.trim(), '300000');
  });

  test.serial('links, real paths, lengths and folders of nobody else', async (t) => {
    const folder = await vm.fs.mkdtemp('/tmp/own-');
    t.regex(folder, /^\/tmp\/own-\w{6}$/);
    await vm.fs.writeFile(`${folder}/one`, '0123456789', 'utf8');
    await vm.fs.link(`${folder}/one`, `${folder}/two`);
    t.is((await vm.fs.stat(`${folder}/two`)).nlink, 2);
    await vm.fs.truncate(`${folder}/two`, 3);
    t.is(await vm.fs.readFile(`${folder}/one`, 'utf-8'), '012');
    await vm.fs.symlink('two', `${folder}/link`);
    t.is(await vm.fs.realpath(`${folder}/../${folder.slice(5)}/link`), `${folder}/two`);
    await vm.fs.chmod(`${folder}/one`, 0o640);
    await vm.fs.copyFile(`${folder}/link`, `${folder}/three`);
    t.is(await vm.fs.readFile(`${folder}/three`, 'utf8'), '012');
    t.is((await vm.fs.stat(`${folder}/three`)).mode & 0o7777, 0o640);
    await t.throwsAsync(vm.fs.copyFile(`${folder}/one`, `${folder}/three`, constants.COPYFILE_EXCL), {
      instanceOf: GuestFileError,
      message: `EEXIST: File exists, copyfile '${folder}/one' -> '${folder}/three'`,
    });
    await vm.fs.unlink(`${folder}/three`);
    await vm.fs.access(`${folder}/link`);
    await vm.fs.unlink(`${folder}/link`);
    await vm.fs.unlink(`${folder}/two`);
    t.deepEqual(await vm.fs.readdir(folder), ['one']);
  });

  test.serial('what makes no sense is refused here, and an aborted transfer ends', async (t) => {
    for (const work of [
      () => vm.fs.readFile(''),
      () => vm.fs.writeFile('/tmp/a\0b', 'x'),
      () => vm.fs.stat('/tmp/a\0b'),
      () => vm.fs.writeFile('/tmp/own', undefined as never),
      () => vm.fs.chmod('/tmp/own', 0o200_000),
      () => vm.fs.utimes('/tmp/own', Number.NaN, 0),
      async () => vm.fs.createReadStream('/tmp/own', { start: -1 }),
      async () => vm.fs.createWriteStream('/tmp/own', { start: 0.5 }),
    ]) {
      await t.throwsAsync(work(), { code: 'ERR_INVALID_OPTIONS' });
    }
    await t.throwsAsync(vm.fs.readFile('/dev/zero', { signal: AbortSignal.timeout(200) }), { name: 'AbortError' });
    const endless = Readable.from(
      (function* () {
        for (;;) yield Buffer.alloc(1000);
      })(),
    );
    const writing = vm.fs.writeFile('/dev/null', endless, { signal: AbortSignal.timeout(200) });
    await t.throwsAsync(writing, { name: 'AbortError' });
    t.is((await vm.exec('echo', ['fine'])).stdout, 'fine\n');
  });

  test.serial('many at once leave no descriptor with the agent', async (t) => {
    const count = async (): Promise<string> => (await vm.exec('ls /proc/1/fd | wc -l', { shell: true })).stdout;
    const before = await count();
    await Promise.all(Array.from({ length: 50 }, (_, index) => vm.fs.writeFile(`/tmp/many-${index}`, `${index}`)));
    const texts = await Promise.all(
      Array.from({ length: 50 }, (_, index) => vm.fs.readFile(`/tmp/many-${index}`, 'utf8')),
    );
    t.deepEqual(
      texts,
      Array.from({ length: 50 }, (_, index) => `${index}`),
    );
    t.is(await count(), before);
  });
}
