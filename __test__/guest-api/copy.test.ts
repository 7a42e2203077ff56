// Copies by the real agent, run as a process of this machine, and by agents that mean harm.

import { execFileSync } from 'node:child_process';
import type { ServerHttp2Stream } from 'node:http2';
import {
  chmod,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';

import { MicroVMError } from '../../src/errors.ts';
import { AgentApi } from '../../src/guest-api/agent-api.ts';
import { type CopyProgress, receiveArchive } from '../../src/guest-api/copy.ts';
import { GuestFileError } from '../../src/guest-api/file-error.ts';
import { GuestFiles } from '../../src/guest-api/guest-files.ts';
import { Patience } from '../../src/host/patience.ts';
import { agentByHand, transportTo } from '../helpers/agent-by-hand.ts';
import { hostileAgent } from '../helpers/hostile-agent.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

async function setUp(
  t: ExecutionContext,
): Promise<{ fs: GuestFiles; folder: string; holdings: () => Promise<number> }> {
  const agent = await agentByHand(t);
  return {
    fs: new GuestFiles(agent.api),
    folder: await temporaryFolder(t),
    holdings: async () => (await agent.holdings()).descriptors,
  };
}

async function makeTree(root: string): Promise<void> {
  await mkdir(join(root, 'inner'), { recursive: true });
  await writeFile(join(root, 'file'), 'content', { mode: 0o640 });
  await writeFile(join(root, 'inner/large'), Buffer.alloc(3_000_000, 'large'));
  await chmod(join(root, 'inner/large'), 0o444);
  await link(join(root, 'file'), join(root, 'inner/same'));
  await symlink('../file', join(root, 'inner/link'));
  const sparse = await open(join(root, 'sparse'), 'w');
  await sparse.write('end', 50_000_000);
  await sparse.close();
  await utimes(join(root, 'file'), 1.5, 1_234_567_890.125);
  await chmod(join(root, 'inner'), 0o711);
  await utimes(join(root, 'inner'), 1, 1_111_111_111.5);
}

async function assertTree(t: ExecutionContext, root: string): Promise<void> {
  t.deepEqual((await readdir(root, { recursive: true })).sort(), [
    'file',
    'inner',
    'inner/large',
    'inner/link',
    'inner/same',
    'sparse',
  ]);
  const file = await stat(join(root, 'file'));
  t.like(file, { mode: 0o100_640, mtimeMs: 1_234_567_890_125, nlink: 2 });
  t.is((await stat(join(root, 'inner/same'))).ino, file.ino);
  t.like(await stat(join(root, 'inner')), { mode: 0o40_711, mtimeMs: 1_111_111_111_500 });
  t.is((await stat(join(root, 'inner/large'))).mode, 0o100_444);
  t.true((await readFile(join(root, 'inner/large'))).equals(Buffer.alloc(3_000_000, 'large')));
  t.is(await readlink(join(root, 'inner/link')), '../file');
  const sparse = await stat(join(root, 'sparse'));
  t.is(sparse.size, 50_000_003);
  t.true(sparse.blocks < 1000, `${sparse.blocks} blocks`);
}

test('a tree goes in and out with modes, links, holes and times, and progress is told', async (t) => {
  const { fs, folder, holdings } = await setUp(t);
  await makeTree(join(folder, 'tree'));
  const told: CopyProgress[] = [];
  // The connection is one of them.
  await fs.stat(folder);
  const before = await holdings();
  const copied = await fs.copyIn(join(folder, 'tree'), join(folder, 'in'), {
    onProgress: (progress) => told.push(progress),
  });
  t.is(copied.entries, 7);
  // File systems count holes by blocks.
  t.true(copied.bytes >= 3_000_010 && copied.bytes < 3_100_000, `${copied.bytes} bytes`);
  t.like(told.at(-1), copied);
  t.true(told.length > 3);
  t.deepEqual(
    told.map(({ bytes }) => bytes),
    told.map(({ bytes }) => bytes).toSorted((a, b) => a - b),
  );
  await assertTree(t, join(folder, 'in'));
  t.deepEqual(await fs.copyOut(join(folder, 'in'), join(folder, 'out')), copied);
  await assertTree(t, join(folder, 'out'));
  // Over what is there: files are replaced, folders stay.
  await writeFile(join(folder, 'out/file'), 'other');
  await writeFile(join(folder, 'out/inner/more'), 'more');
  await chmod(join(folder, 'out/inner'), 0o700);
  await fs.copyOut(`${join(folder, 'in')}/.`, join(folder, 'out'));
  t.is(await readFile(join(folder, 'out/file'), 'utf8'), 'content');
  t.is(await readFile(join(folder, 'out/inner/more'), 'utf8'), 'more');
  t.is((await stat(join(folder, 'out/inner'))).mode, 0o40_700);
  t.is(await holdings(), before, 'no descriptor is left with the agent');
});

test('what is excluded is left out on both ways', async (t) => {
  const { fs, folder } = await setUp(t);
  await makeTree(join(folder, 'tree'));
  await fs.copyIn(join(folder, 'tree'), join(folder, 'in'), { exclude: ['inner/l*', 'sparse'] });
  t.deepEqual((await readdir(join(folder, 'in'), { recursive: true })).sort(), ['file', 'inner', 'inner/same']);
  await fs.copyOut(join(folder, 'in'), join(folder, 'out'), { exclude: ['inner/', 'x y'] });
  t.deepEqual(await readdir(join(folder, 'out')), ['file']);
});

test('thousands of files are copied with few pieces', async (t) => {
  const { fs, folder } = await setUp(t);
  await mkdir(join(folder, 'tree'));
  execFileSync('sh', ['-c', 'for d in 0 1 2 3 4; do mkdir $d; for f in $(seq 400); do echo $f > $d/$f; done; done'], {
    cwd: join(folder, 'tree'),
  });
  let pieces = 0;
  const { entries } = await fs.copyIn(join(folder, 'tree'), join(folder, 'in'), { onProgress: () => (pieces += 1) });
  t.is(entries, 2006);
  t.true(pieces < 30, `${pieces} pieces`);
  t.is((await fs.copyOut(join(folder, 'in'), join(folder, 'out'))).entries, 2006);
  t.is(await readFile(join(folder, 'out/4/400'), 'utf8'), '400\n');
});

test("the guest's errors have Node's codes and the guest's path, this host's have their own code", async (t) => {
  const { fs, folder } = await setUp(t);
  await mkdir(join(folder, 'tree/inner'), { recursive: true });
  await writeFile(join(folder, 'tree/inner/file'), Buffer.alloc(2_000_000));
  await writeFile(join(folder, 'plain'), 'x');
  const guest = async (work: Promise<unknown>, fields: Partial<GuestFileError>): Promise<void> => {
    t.like(await t.throwsAsync(work, { instanceOf: GuestFileError }), fields);
  };
  const missing = join(folder, 'no/such');
  await guest(fs.copyIn(join(folder, 'tree'), missing), { code: 'ENOENT', errno: -2, syscall: 'mkdir', path: missing });
  await guest(fs.copyIn(join(folder, 'tree'), join(folder, 'plain')), { code: 'ENOTDIR', path: join(folder, 'plain') });
  await guest(fs.copyIn(join(folder, 'plain'), '/dev/null'), { code: 'EEXIST', path: '/dev/null' });
  await guest(fs.copyIn(join(folder, 'tree/inner/file'), '/dev/full'), { code: 'EEXIST' });
  await guest(fs.copyOut(missing, join(folder, 'out')), { code: 'ENOENT', syscall: 'lstat', path: missing });
  await mkdir(join(folder, 'old/tree/inner/file'), { recursive: true });
  await guest(fs.copyIn(join(folder, 'tree'), join(folder, 'old')), {
    code: 'EISDIR',
    path: join(folder, 'old/tree/inner/file'),
  });

  const host = async (work: Promise<unknown>, code: string, errno: number, path: string): Promise<void> => {
    const error = await t.throwsAsync(work, { instanceOf: MicroVMError, code });
    t.like(error?.cause, { errno, path });
  };
  await host(fs.copyIn(missing, folder), 'ERR_COPY_FILE', 2, missing);
  await host(fs.copyOut(join(folder, 'tree'), missing), 'ERR_COPY_FILE', 2, missing);
  await host(
    fs.copyOut(join(folder, 'tree'), join(folder, 'old')),
    'ERR_COPY_FILE',
    21,
    join(folder, 'old/tree/inner/file'),
  );
  await symlink('/', join(folder, 'tree/inner/root'));
  await mkdir(join(folder, 'links/tree'), { recursive: true });
  await symlink('/', join(folder, 'links/tree/inner'));
  await t.throwsAsync(fs.copyIn(join(folder, 'tree'), join(folder, 'links')), { code: 'ERR_COPY_REFUSED' });
  await t.throwsAsync(fs.copyOut(join(folder, 'tree'), join(folder, 'links')), { code: 'ERR_COPY_REFUSED' });
  t.false((await readdir('/')).includes('file'));
});

test('options are checked at once, every problem is told', async (t) => {
  const { fs } = await setUp(t);
  const problems = async (work: Promise<unknown>): Promise<readonly string[] | undefined> => {
    const error = await t.throwsAsync(work, { instanceOf: MicroVMError, code: 'ERR_INVALID_OPTIONS' });
    return error?.problems?.map(({ path }) => path);
  };
  const wrong = { exclude: [''], onProgress: 1, preserveOwner: 'yes', signal: {}, maxByte: 1 };
  t.deepEqual(await problems(fs.copyOut('', 'a\0', { ...wrong, maxEntries: -1 } as never)), [
    'guestPath',
    'hostPath',
    'signal',
    'onProgress',
    'preserveOwner',
    'exclude[0]',
    'maxEntries',
    'maxByte',
  ]);
  t.deepEqual(await problems(fs.copyIn('a', 'b', { maxBytes: 1 } as never)), ['maxBytes']);
  t.throws(() => fs.watch('', { maxQueue: 0 }), { code: 'ERR_INVALID_OPTIONS' });
});

test('an aborted copy ends on both ways, and what it used is closed', async (t) => {
  const { fs, folder, holdings } = await setUp(t);
  const large = await open(join(folder, 'large'), 'w');
  await large.write(Buffer.alloc(1_000_000, 1));
  for (let at = 0; at < 200; at += 1) await large.write(Buffer.alloc(1_000_000, at));
  await large.close();
  // The connection is one of them.
  await fs.stat(folder);
  const before = await holdings();
  for (const copy of [fs.copyIn.bind(fs), fs.copyOut.bind(fs)]) {
    const abort = new AbortController();
    const work = copy(join(folder, 'large'), join(folder, 'copy'), {
      signal: abort.signal,
      onProgress: ({ bytes }) => void (bytes > 20_000_000 && abort.abort(new Error('enough'))),
    });
    const error = await t.throwsAsync(work, { name: 'AbortError' });
    t.is((error?.cause as Error | undefined)?.message, 'enough');
    t.true((await lstat(join(folder, 'copy'))).size < 150_000_000);
    await t.throwsAsync(copy(join(folder, 'large'), join(folder, 'none'), { signal: AbortSignal.abort() }), {
      name: 'AbortError',
    });
  }
  // The agent closes what an aborted request had open when it hears of it: behind the answer to a later one.
  await fs.stat(folder);
  const after = await holdings();
  t.true(after <= before, `${after} descriptors, ${before} before`);
});

test('limits end a copy out', async (t) => {
  const { fs, folder } = await setUp(t);
  await makeTree(join(folder, 'tree'));
  const limit = { code: 'ERR_COPY_LIMIT', instanceOf: MicroVMError };
  const error = await t.throwsAsync(
    fs.copyOut(join(folder, 'tree'), join(folder, 'a'), { maxBytes: 4_000_000 }),
    limit,
  );
  t.regex(error?.message ?? '', /4000000 bytes/);
  t.regex(error?.hint ?? '', /maxBytes/);
  await t.throwsAsync(fs.copyOut(join(folder, 'tree'), join(folder, 'b'), { maxEntries: 6 }), limit);
  await fs.copyOut(join(folder, 'tree'), join(folder, 'c'), { maxEntries: 7, maxBytes: 53_000_010 });
});

/** Files of a guest whose agent answers so. */
async function filesOf(
  t: ExecutionContext,
  answer: (stream: ServerHttp2Stream) => void,
  answerTimeoutMs = 10_000,
): Promise<GuestFiles> {
  const api = new AgentApi(transportTo(await hostileAgent(t, answer)), { answerTimeoutMs });
  t.teardown(() => api.close());
  return new GuestFiles(api);
}

/** An archive by tar itself, with names as they are given. */
async function tar(t: ExecutionContext, script: string, ...args: string[]): Promise<Buffer> {
  const cwd = await temporaryFolder(t);
  execFileSync('sh', ['-c', script], { cwd });
  return execFileSync('tar', ['cP', ...args], { cwd });
}

for (const [what, script, args] of [
  ['a name that leads upwards', 'mkdir t; echo evil > t/f', ['--transform=s,t/f,t/../../escaped,', 't']],
  ['an absolute name', 'echo evil > f', ['--transform=s,f,/tmp/microvm-escaped,', 'f']],
  ['another name than was asked for', 'mkdir t; echo evil > other', ['t', 'other']],
  [
    'a file through its own link',
    'mkdir -p t/x; ln -s .. t/out; echo evil > t/x/escaped',
    ['t/out', '--transform=s,t/x,t/out,', 't/x/escaped'],
  ],
  ['a hard link to what is outside', 'mkdir t; echo > t/a; ln t/a t/b', ['--transform=s,t/a,../secret,', 't/b', 't/a']],
  ['a device', 'mkdir t', ['t', '/dev/null', '--transform=s,/dev/null,t/null,']],
] as const) {
  test(`an agent that sends ${what} is refused and reaches nothing`, async (t) => {
    const archive = await tar(t, script, ...args);
    const fs = await filesOf(t, (stream) => {
      stream.respond({ ':status': 200 });
      stream.end(archive);
    });
    const home = await temporaryFolder(t);
    await writeFile(join(home, 'secret'), 'secret');
    await mkdir(join(home, 'target'));
    for (const target of ['target', 'new']) {
      await t.throwsAsync(fs.copyOut('/t', join(home, target)), { instanceOf: MicroVMError, code: 'ERR_COPY_REFUSED' });
    }
    t.deepEqual(
      (await readdir(home)).filter((name) => name !== 'new'),
      ['secret', 'target'],
    );
    t.is(await readFile(join(home, 'secret'), 'utf8'), 'secret');
    t.is((await stat(join(home, 'secret'))).nlink, 1);
  });
}

for (const [what, code, answer] of [
  [
    'sends garbage',
    'ERR_COPY_ARCHIVE',
    (stream) => (stream.respond({ ':status': 200 }), stream.end(Buffer.alloc(4096, 'x'))),
  ],
  ['sends nothing', 'ERR_COPY_ARCHIVE', (stream) => (stream.respond({ ':status': 200 }), stream.end())],
  ['sends zeros without end', 'ERR_COPY_ARCHIVE', (stream) => void (stream.respond({ ':status': 200 }), flood(stream))],
  ['breaks off', 'ERR_AGENT_LOST', (stream) => (stream.respond({ ':status': 200 }), stream.session?.destroy())],
  ['tells no reason', 'ERR_AGENT_PROTOCOL', (stream) => withTrailers(stream, { refusal: '%zz' })],
  ['tells a reason that is no text', 'ERR_AGENT_PROTOCOL', (stream) => withTrailers(stream, { refusal: '%7B%7D' })],
] as readonly (readonly [string, string, (stream: ServerHttp2Stream) => void])[]) {
  test(`an agent that ${what} instead of an archive is ${code}`, async (t) => {
    const fs = await filesOf(t, answer);
    const target = join(await temporaryFolder(t), 'target');
    await t.throwsAsync(fs.copyOut('/t', target), { instanceOf: MicroVMError, code });
  });
}

/** Tells how many limits run. */
class CountedPatience extends Patience {
  begun = 0;
  readonly running = new Set<() => void>();

  override limit(ms: number, expire: () => void): () => void {
    this.begun += 1;
    const end = super.limit(ms, expire);
    const met = (): void => {
      this.running.delete(met);
      end();
    };
    this.running.add(met);
    return met;
  }
}

function flood(stream: ServerHttp2Stream): void {
  stream.write(Buffer.alloc(65_536), (error) => error ?? flood(stream));
}

function withTrailers(stream: ServerHttp2Stream, trailers: Record<string, string>): void {
  stream.respond({ ':status': 200 }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers(trailers));
  stream.end();
}

test('an agent that does not go on with what is copied out is ERR_AGENT_TIMEOUT', async (t) => {
  const silent = await filesOf(
    t,
    (stream) => (stream.respond({ ':status': 200 }), stream.write(Buffer.alloc(100))),
    2_000,
  );
  const target = join(await temporaryFolder(t), 'target');
  const error = await t.throwsAsync(silent.copyOut('/t', target), { instanceOf: MicroVMError });
  t.like(error, { code: 'ERR_AGENT_TIMEOUT', message: 'The agent did not go on with the files within 2000 ms' });
});

test('who is slow to take what is copied out has all the time there is', async (t) => {
  const patience = new CountedPatience();
  const answer = (stream: ServerHttp2Stream): void => {
    stream.respond({ ':status': 200 });
    stream.end(Buffer.alloc(2_000_000));
  };
  const api = new AgentApi(transportTo(await hostileAgent(t, answer)), { patience });
  t.teardown(() => api.close());
  let bytes = 0;
  for await (const piece of receiveArchive(api, '/t', {})) {
    t.is(patience.running.size, 0, 'no limit runs while the taker has its turn');
    bytes += piece.length;
  }
  t.is(bytes, 2_000_000);
  t.true(patience.begun > 2, 'others do: for the answer and for each piece');
});

test('an agent that stalls is left when the copy is aborted, and the reason of one that breaks off is told', async (t) => {
  const abort = new AbortController();
  const stalling = await filesOf(t, (stream) => {
    stream.respond({ ':status': 200 });
    stream.write(Buffer.alloc(100));
    setImmediate(() => abort.abort());
  });
  const target = join(await temporaryFolder(t), 'target');
  await t.throwsAsync(stalling.copyOut('/t', target, { signal: abort.signal }), { name: 'AbortError' });
  const refusal = { code: 'EACCES', message: 'Permission denied', path: '/t/secret', syscall: 'open' };
  const breaking = await filesOf(t, (stream) =>
    withTrailers(stream, { refusal: encodeURIComponent(JSON.stringify(refusal)) }),
  );
  const error = await t.throwsAsync(breaking.copyOut('/t', target), { instanceOf: GuestFileError });
  t.like(error, { code: 'EACCES', errno: -13, path: '/t/secret', syscall: 'open' });
});
