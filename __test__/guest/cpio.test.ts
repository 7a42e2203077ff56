import { execFile } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import fc from 'fast-check';
import { MicroVMError } from '../../src/errors.ts';
import { copyCpio } from '../../src/guest/cpio-check.ts';
import { CpioWriter, MODE } from '../../src/guest/cpio.ts';
import { readCpio } from '../helpers/read-cpio.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

/** What a writer's calls put into the archive. */
async function archive(write: (writer: CpioWriter) => Promise<void>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  const writer = new CpioWriter(async (bytes) => void parts.push(Uint8Array.from(bytes)));
  await write(writer);
  await writer.end();
  return Buffer.concat(parts);
}

async function copy(pieces: Iterable<Buffer>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  const source = (async function* () {
    yield* pieces;
  })();
  await copyCpio(source, async (bytes) => void parts.push(Uint8Array.from(bytes)), '/rootfs.cpio');
  return Buffer.concat(parts);
}

const sample = (): Promise<Buffer> =>
  archive(async (writer) => {
    await writer.add({ name: 'etc', mode: MODE.folder | 0o755 });
    await writer.add({ name: 'etc/motd', mode: MODE.file | 0o644 }, Buffer.from('hello'));
    await writer.add({ name: 'link', mode: MODE.symlink | 0o777 }, Buffer.from('etc/motd'));
  });

test('files of any names and contents come back, at aligned places', async (t) => {
  const name = fc.string({ minLength: 1, maxLength: 40, unit: 'binary' }).filter((value) => !value.includes('\0'));
  const files = fc.array(fc.record({ name, content: fc.uint8Array({ maxLength: 50 }), mtime: fc.nat() }), {
    maxLength: 8,
  });
  await fc.assert(
    fc.asyncProperty(files, async (list) => {
      const bytes = await archive(async (writer) => {
        for (const { content, ...entry } of list) await writer.add({ ...entry, mode: MODE.file | 0o600 }, content);
      });
      t.is(bytes.length % 4, 0);
      t.deepEqual(
        readCpio(bytes).map(({ name, content, mtime }) => ({ name, content: Uint8Array.from(content), mtime })),
        list,
      );
      t.true(readCpio(bytes).every(({ owner: [user, group] }) => user === 0 && group === 0));
    }),
  );
});

test('the cpio program unpacks what was written', async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, 'a.cpio'), await sample());
  await promisify(execFile)('sh', ['-c', 'mkdir out && cd out && cpio --extract --quiet < ../a.cpio'], { cwd: folder });
  t.deepEqual((await readdir(join(folder, 'out'))).sort(), ['etc', 'link']);
  t.is(await readFile(join(folder, 'out/link'), 'utf8'), 'hello');
});

test('more or less content than the header says is refused', async (t) => {
  const writer = new CpioWriter(async () => {});
  await writer.begin({ name: 'a', mode: MODE.file, size: 2 });
  await t.throwsAsync(writer.write(Buffer.from('abc')), { instanceOf: RangeError });
  await writer.write(Buffer.from('a'));
  await t.throwsAsync(writer.end(), { instanceOf: RangeError, message: /1 bytes/ });
});

test('a good archive is copied as it is, however it is cut up', async (t) => {
  const whole = await sample();
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 1, max: whole.length - 1 }), { maxLength: 30 }), async (cuts) => {
      const places = [0, ...cuts.sort((a, b) => a - b)];
      t.deepEqual(await copy(places.map((from, index) => whole.subarray(from, places[index + 1]))), whole);
    }),
  );
});

test('archives one after another, with zeros between, come out aligned', async (t) => {
  const one = await sample();
  const copied = await copy([one, Buffer.alloc(513), one, Buffer.alloc(1000)]);
  t.deepEqual(copied, Buffer.concat([one, one]));
});

test('an archive with checksums becomes one that every kernel knows', async (t) => {
  const crc = Buffer.from((await sample()).toString('latin1').replaceAll('070701', '070702'), 'latin1');
  t.deepEqual(await copy([crc]), await sample());
});

test('an archive that is cut off anywhere is refused', async (t) => {
  const whole = await sample();
  for (let length = 0; length < whole.length; length++) {
    await t.throwsAsync(copy([whole.subarray(0, length)]), { instanceOf: MicroVMError, code: 'ERR_ROOTFS_INVALID' });
  }
});

test('arbitrary damage is refused or copied, never more', async (t) => {
  const whole = await sample();
  const damage = fc.array(fc.tuple(fc.nat({ max: whole.length - 1 }), fc.integer({ min: 0, max: 255 })), {
    minLength: 1,
  });
  await fc.assert(
    fc.asyncProperty(damage, async (bytes) => {
      const broken = Buffer.from(whole);
      for (const [at, byte] of bytes) broken[at] = byte;
      const copied = await copy([broken]).catch((error: unknown) => error);
      if (Buffer.isBuffer(copied)) t.true(copied.length <= broken.length);
      else t.true(copied instanceof MicroVMError, String(copied));
    }),
    { numRuns: 500 },
  );
});

test('what is wrong with an archive is told with its place', async (t) => {
  const whole = await sample();
  const longName = Buffer.from(whole);
  longName.write('ffffffff', 6 + 11 * 8, 'latin1');
  await t.throwsAsync(copy([longName]), { message: /name of the entry at byte 0 has 4294967295 bytes/ });
  await t.throwsAsync(copy([Buffer.alloc(512)]), { message: /it is empty/ });
  await t.throwsAsync(copy([Buffer.from('070707'.padEnd(200, '0'))]), { message: /no newc header at byte 0/ });
  await t.throwsAsync(copy([whole, Buffer.from('more')]), { message: /inside a header at byte/ });
});
