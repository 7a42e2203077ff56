// Files by the real agent, run as a process of this machine: its paths are this host's.

import { execFileSync } from 'node:child_process';
import { constants } from 'node:fs';
import { open, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import test, { type ExecutionContext } from 'ava';

import { MicroVMError } from '../../src/errors.ts';
import { GuestFileError } from '../../src/guest-api/file-error.ts';
import { GuestFiles } from '../../src/guest-api/guest-files.ts';
import { Patience } from '../../src/host/patience.ts';
import { agentByHand } from '../helpers/agent-by-hand.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

/** So long an answer may take where its silence is the point: once `patience` is released. */
const ANSWER_MS = 1_000;

async function setUp(
  t: ExecutionContext,
): Promise<{ fs: GuestFiles; folder: string; patience: Patience; holdings: () => Promise<number> }> {
  // The agent is a process of its own, and this machine may be busy.
  const patience = new Patience();
  patience.hold();
  const agent = await agentByHand(t, { answerTimeoutMs: ANSWER_MS, patience });
  const fs = new GuestFiles(agent.api);
  const folder = await temporaryFolder(t);
  // The connection is one of its descriptors.
  await fs.stat(folder);
  return { fs, folder, patience, holdings: async () => (await agent.holdings()).descriptors };
}

const after = (ms: number): Promise<'waiting'> => new Promise((resolve) => setTimeout(resolve, ms, 'waiting'));

test('a read that fails has the code and the path of the guest', async (t) => {
  const { fs } = await setUp(t);
  // The memory of a process: nothing is at its beginning.
  const error = await t.throwsAsync(fs.readFile('/proc/self/mem'), { instanceOf: GuestFileError });
  t.like(error, { code: 'EIO', errno: -5, syscall: 'read', path: '/proc/self/mem' });
  t.is(error?.message, "EIO: I/O error, read '/proc/self/mem'");
});

test('a write that fails is told as one', async (t) => {
  const { fs } = await setUp(t);
  const error = await t.throwsAsync(fs.writeFile('/dev/full', 'x'), { instanceOf: GuestFileError });
  t.like(error, { code: 'ENOSPC', syscall: 'write', path: '/dev/full' });
});

test('a FIFO whose writer is idle is waited for, and read to its end', async (t) => {
  const { fs, folder, patience, holdings } = await setUp(t);
  const path = join(folder, 'fifo');
  execFileSync('sh', ['-c', 'mkfifo "$0"', path]);
  // Both ends, so that it opens at once.
  const own = await open(path, 'r+');
  const before = await holdings();
  const pieces: AsyncIterator<string> = fs.createReadStream(path, 'utf8')[Symbol.asyncIterator]();
  const first = pieces.next();
  await own.write('one');
  t.is((await first).value, 'one');
  patience.release();
  const second = pieces.next();
  t.is(await Promise.race([second, after(2 * ANSWER_MS)]), 'waiting', 'longer than an answer may take');
  patience.hold();
  await own.write('two');
  t.is((await second).value, 'two');
  await own.close();
  t.true((await pieces.next()).done);
  await fs.stat(folder);
  t.is(await holdings(), before);
});

test('a full FIFO is waited for, and takes everything', async (t) => {
  const { fs, folder } = await setUp(t);
  const path = join(folder, 'fifo');
  execFileSync('sh', ['-c', 'mkfifo "$0"', path]);
  const own = await open(path, constants.O_RDWR | constants.O_NONBLOCK);
  const content = Buffer.alloc(1_000_000, 'full');
  const writing = fs.writeFile(path, content);
  await after(300);
  const pieces: Buffer[] = [];
  let bytes = 0;
  while (bytes < content.length) {
    const { bytesRead, buffer } = await own.read(Buffer.alloc(65_536)).catch(async (error: unknown) => {
      t.is((error as NodeJS.ErrnoException).code, 'EAGAIN');
      await after(10);
      return { bytesRead: 0, buffer: Buffer.alloc(0) };
    });
    bytes += bytesRead;
    pieces.push(buffer.subarray(0, bytesRead));
  }
  await writing;
  t.true(Buffer.concat(pieces).equals(content));
  await own.close();
});

test('who gives up on a FIFO leaves nothing with the agent, however many do', async (t) => {
  const { fs, folder, holdings } = await setUp(t);
  const path = join(folder, 'fifo');
  execFileSync('sh', ['-c', 'mkfifo "$0"', path]);
  const own = await open(path, 'r+');
  const before = await holdings();
  // More than the agent has threads for calls that may block.
  const abort = new AbortController();
  const { signal } = abort;
  const reading = Array.from({ length: 40 }, () => fs.readFile(path, { signal }));
  const outcomes = Promise.allSettled(reading);
  // Each of them holds it open once the agent has come to it; others are served meanwhile.
  do {
    t.true((await fs.stat(path)).isFIFO());
  } while ((await holdings()) < before + reading.length);
  abort.abort();
  for (const outcome of await outcomes) t.is(outcome.status, 'rejected');
  // Full from here on: more than a pipe and the windows on the way take.
  const filling = fs.writeFile(path, Buffer.alloc(2_000_000), { signal: AbortSignal.timeout(300) });
  await t.throwsAsync(filling, { name: 'AbortError' });
  await fs.stat(folder);
  t.is(await holdings(), before);
  await own.close();
});

test('a guest that takes nothing for the time of an answer is ERR_AGENT_TIMEOUT', async (t) => {
  const { fs, folder, patience } = await setUp(t);
  const path = join(folder, 'fifo');
  execFileSync('sh', ['-c', 'mkfifo "$0"', path]);
  const own = await open(path, 'r+');
  patience.release();
  await t.throwsAsync(fs.writeFile(path, Buffer.alloc(2_000_000)), { code: 'ERR_AGENT_TIMEOUT' });
  await own.close();
});

test('encodings are those that are told, and text is UTF-8', async (t) => {
  const { fs, folder } = await setUp(t);
  const path = join(folder, 'text');
  await fs.writeFile(path, 'grü', 'utf8');
  await fs.appendFile(path, 'ße', { encoding: 'utf-8' });
  t.is(await fs.readFile(path, 'utf8'), 'grüße');
  t.is(await fs.readFile(path, 'utf-8'), 'grüße');
  t.is(await fs.readFile(path, { encoding: 'utf-8' }), 'grüße');
  for (const none of [undefined, null, 'buffer', {}, { encoding: null }, { encoding: 'buffer' }] as const) {
    t.deepEqual(await fs.readFile(path, none), Buffer.from('grüße'));
  }
});

test('what is no content is refused before the file is touched, and leaves nothing with the agent', async (t) => {
  const { fs, folder, holdings } = await setUp(t);
  const path = join(folder, 'file');
  await writeFile(path, 'kept');
  const before = await holdings();
  const none = [undefined, null, 42, true, {}, () => 'x', new Uint16Array(2), new ArrayBuffer(2), new Writable()];
  for (const content of none as never[]) {
    for (const work of [fs.writeFile(path, content), fs.appendFile(path, content)]) {
      const error = await t.throwsAsync(work, { instanceOf: MicroVMError, code: 'ERR_INVALID_OPTIONS' });
      t.like(error?.problems, [{ path: 'content' }] as never, String(content));
    }
  }
  t.is(await readFile(path, 'utf8'), 'kept');
  // What iterates to no content is found out later, as in Node; it leaves nothing either.
  await t.throwsAsync(fs.writeFile(join(folder, 'other'), [42] as never), { code: 'ERR_INVALID_ARG_TYPE' });
  await fs.stat(folder);
  t.is(await holdings(), before);
});

test('lists and generators are content, of text and of bytes', async (t) => {
  const { fs, folder } = await setUp(t);
  const path = join(folder, 'file');
  await fs.writeFile(path, ['grü', Buffer.from('ße'), '\n']);
  await fs.appendFile(
    path,
    (function* () {
      yield 'more';
    })(),
  );
  await fs.appendFile(
    path,
    (async function* () {
      yield Buffer.from('!');
    })(),
  );
  t.is(await readFile(path, 'utf8'), 'grüße\nmore!');
});

test('a stream of text has no character cut, wherever its bytes are', async (t) => {
  const { fs, folder } = await setUp(t);
  const path = join(folder, 'file');
  // No piece of an even length ends where a character does.
  const text = `x${'ü'.repeat(300_000)}`;
  await writeFile(path, text);
  for (const stream of [fs.createReadStream(path, { encoding: 'utf8' }), fs.createReadStream(path, 'utf-8')]) {
    const pieces: unknown[] = await stream.toArray();
    t.true(pieces.every((piece) => typeof piece === 'string'));
    t.is(pieces.join(''), text);
  }
  const [bytes] = (await fs.createReadStream(path, { encoding: 'buffer', end: 0 }).toArray()) as unknown[];
  t.deepEqual(bytes, Buffer.from('x'));
});

test('a part begins at its end at the latest', async (t) => {
  const { fs, folder } = await setUp(t);
  const path = join(folder, 'file');
  await writeFile(path, '0123');
  t.is((await fs.createReadStream(path, { start: 2, end: 2 }).toArray()).join(''), '2');
  t.is((await fs.createReadStream(path, { start: 9 }).toArray()).join(''), '');
  const error = t.throws(() => fs.createReadStream(path, { start: 3, end: 2 }), { code: 'ERR_INVALID_OPTIONS' });
  t.regex(error?.message ?? '', /start: 3 .*at most end, which is 2/);
});

test("a status's mode is permissions for another file, without the type's bits", async (t) => {
  const { fs, folder } = await setUp(t);
  const [one, other, below] = ['one', 'other', 'below'].map((name) => join(folder, name)) as [string, string, string];
  await writeFile(one, '', { mode: 0o640 });
  const { mode } = await fs.stat(one);
  await fs.writeFile(other, '', { mode });
  t.is((await stat(other)).mode, 0o100_640);
  await fs.chmod(other, (await fs.stat(other)).mode | 0o111);
  t.is((await stat(other)).mode, 0o100_751);
  await fs.chmod(folder, 0o700);
  await fs.mkdir(below, { mode: (await fs.stat(folder)).mode });
  t.is((await stat(below)).mode, 0o40_700);
});

test('the further names of node:fs do as there', async (t) => {
  const { fs, folder } = await setUp(t);
  const path = join(folder, 'file');
  await writeFile(path, '0123456789');
  await fs.access(path);
  await fs.access(path, constants.R_OK | constants.W_OK);
  await fs.truncate(path, 4);
  t.is(await readFile(path, 'utf8'), '0123');
  await fs.truncate(path, 6);
  t.is(await readFile(path, 'latin1'), '0123\0\0');
  await fs.truncate(path);
  t.is((await stat(path)).size, 0);
  await fs.link(path, join(folder, 'same'));
  t.is((await stat(path)).nlink, 2);
  await fs.symlink('same', join(folder, 'to'));
  t.is(await fs.realpath(join(folder, './to')), await fs.realpath(join(folder, 'same')));
  await fs.unlink(join(folder, 'to'));
  t.is((await stat(path)).nlink, 2, 'the link alone is gone');
  await fs.unlink(join(folder, 'same'));
  t.is((await stat(path)).nlink, 1);
  const [one, other] = await Promise.all([fs.mkdtemp(join(folder, 'x-')), fs.mkdtemp(join(folder, 'x-'))]);
  t.not(one, other);
  t.regex(one, /\/x-\w{6}$/);
  t.is((await stat(one)).mode, 0o40_700);
  await fs.rmdir(one);
  await t.throwsAsync(stat(one), { code: 'ENOENT' });
});

test('what they refuse is told as node:fs tells it', async (t) => {
  const { fs, folder } = await setUp(t);
  const own = await import('node:fs/promises');
  const none = join(folder, 'none');
  const file = join(folder, 'file');
  await writeFile(file, '', { mode: 0o600 });
  const calls: readonly ((
    of: Pick<GuestFiles, 'access' | 'rmdir' | 'unlink' | 'truncate' | 'link' | 'symlink' | 'realpath' | 'mkdtemp'>,
  ) => Promise<unknown>)[] = [
    (of) => of.access(none),
    (of) => of.access(file, constants.X_OK),
    (of) => of.rmdir(none),
    (of) => of.rmdir(file),
    (of) => of.rmdir(folder),
    (of) => of.unlink(none),
    (of) => of.unlink(folder),
    (of) => of.truncate(none, 3),
    (of) => of.truncate(folder),
    (of) => of.link(none, join(folder, 'new')),
    (of) => of.link(file, file),
    (of) => of.symlink('anything', file),
    (of) => of.symlink('anything', join(none, 'link')),
    (of) => of.realpath(none),
    (of) => of.realpath(join(file, 'below')),
  ];
  for (const call of calls) {
    const node = await t.throwsAsync<NodeJS.ErrnoException & { dest?: string }>(call(own as never));
    const guest = await t.throwsAsync(call(fs), { instanceOf: GuestFileError });
    const { code, errno, syscall, path, dest } = node ?? {};
    t.like(guest, { code, errno, syscall, path, dest } as never, String(call));
  }
  const error = await t.throwsAsync(fs.mkdtemp(join(none, 'x')), { instanceOf: GuestFileError });
  t.like(error, { code: 'ENOENT', syscall: 'mkdtemp', path: `${none}/xXXXXXX` });
});
