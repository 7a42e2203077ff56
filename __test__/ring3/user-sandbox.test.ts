import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import test from 'ava';
import { MicroVMError, Platform, UserSandbox } from '../../src/ring3/index.ts';
import { BUSYBOX, ring3Test, sandbox } from '../helpers/ring3.ts';
import { staticElf, writeElf } from '../helpers/static-elf.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

const code = (code: string, message?: RegExp) => ({ instanceOf: MicroVMError, code, ...(message && { message }) });
/** jmp to itself */
const ENDLESS = [0xeb, 0xfe];
const LOOP = ['sh', '-c', 'echo begun; while :; do :; done'];

ring3Test('a program gives its output, its exit code and what it did', async (t) => {
  await using box = await UserSandbox.create({ memory: '64MiB' });
  const result = await box.run(BUSYBOX, ['echo', 'hello', 'wörld']);
  t.like(result, {
    stdout: 'hello wörld\n',
    stderr: '',
    exitCode: 0,
    signal: undefined,
    timedOut: false,
    limit: undefined,
    hint: undefined,
  });
  t.true(result.syscalls > 3 && result.durationMs > 0 && result.peakMemory > 4096, JSON.stringify(result));
  const bytes = await box.run(BUSYBOX, ['printf', String.raw`\377`], { encoding: 'buffer' });
  t.deepEqual(bytes.stdout, Buffer.of(0xff));
});

ring3Test('another exit code rejects with all that the result has, unless it may not', async (t) => {
  const box = await sandbox(t);
  const line = ['sh', '-c', 'echo out; echo err >&2; exit 3'];
  const error = await t.throwsAsync(box.run(BUSYBOX, line), code('ERR_EXEC_FAILED', /exit code 3: .*busybox sh -c/));
  t.like(error as MicroVMError, { stdout: 'out\n', stderr: 'err\n', exitCode: 3, timedOut: false, signal: undefined });
  t.true(((error as MicroVMError).syscalls ?? 0) > 0);
  t.like(await box.run(BUSYBOX, line, { reject: false }), { stdout: 'out\n', stderr: 'err\n', exitCode: 3 });
});

ring3Test('a program sees its root folder to read only, and nothing outside of it', async (t) => {
  const root = await temporaryFolder(t);
  writeFileSync(path.join(root, 'f'), 'contents');
  mkdirSync(path.join(root, 'd'));
  symlinkSync('/etc/passwd', path.join(root, 'd', 'out'));
  const box = await sandbox(t, { root, cwd: '/d' });
  t.is((await box.run(BUSYBOX, ['cat', '../f'])).stdout, 'contents');
  t.is((await box.run(BUSYBOX, ['sha256sum', '/f'])).stdout.slice(0, 8), 'd1b2a59f');
  for (const escape of ['out', '../../etc/passwd', '/proc/self/root/etc/passwd']) {
    const { exitCode, stdout } = await box.run(BUSYBOX, ['cat', escape], { reject: false });
    t.deepEqual([exitCode, stdout], [1, ''], escape);
  }
  // What it writes and removes is its own view, until a reset.
  await box.run(BUSYBOX, ['sh', '-c', 'echo changed > /f']);
  t.is((await box.run(BUSYBOX, ['cat', '/f'])).stdout, 'changed\n');
  await box.run(BUSYBOX, ['rm', '/f']);
  t.is((await box.run(BUSYBOX, ['cat', '/f'], { reject: false })).exitCode, 1);
  t.is(readFileSync(path.join(root, 'f'), 'utf8'), 'contents');
  await box.reset();
  t.is((await box.run(BUSYBOX, ['cat', '/f'])).stdout, 'contents');
});

ring3Test('files that a program writes are there for the next one, until a reset', async (t) => {
  const box = await sandbox(t);
  await box.run(BUSYBOX, ['sh', '-c', 'echo kept > /tmp/f']);
  t.is((await box.run(BUSYBOX, ['cat', '/tmp/f'])).stdout, 'kept\n');
  await box.reset();
  t.is((await box.run(BUSYBOX, ['cat', '/tmp/f'], { reject: false })).exitCode, 1);
  await box.reset();
});

ring3Test('standard input is text, bytes, a stream or anything iterable', async (t) => {
  const box = await sandbox(t);
  const cat = async (stdin: object | string) => (await box.run(BUSYBOX, ['cat'], { stdin: stdin as string })).stdout;
  t.is((await box.run(BUSYBOX, ['cat'])).stdout, '');
  t.is(await cat('text'), 'text');
  t.is(await cat(Uint8Array.of(0x41, 0x42)), 'AB');
  t.is(await cat(['a', Buffer.from('b')]), 'ab');
  t.is(await cat(Readable.from(['one ', 'two'])), 'one two');
  async function* slow() {
    yield 'first ';
    await delay(5);
    yield 'last';
  }
  t.is(await cat(slow()), 'first last');
  const large = Buffer.alloc(3_000_000, 'x');
  t.is((await box.run(BUSYBOX, ['wc', '-c'], { stdin: Readable.from([large]) })).stdout.trim(), '3000000');
});

ring3Test(
  'a program that does not read all of its input is no failure, and one whose input fails is ended',
  async (t) => {
    const box = await sandbox(t);
    async function* endless() {
      for (;;) {
        yield 'line\n';
        await delay(1);
      }
    }
    t.is((await box.run(BUSYBOX, ['head', '-n', '1'], { stdin: endless() })).stdout, 'line\n');
    const never = new Readable({ read() {} });
    t.is((await box.run(BUSYBOX, ['true'], { stdin: never })).exitCode, 0);
    async function* failing() {
      yield 'begun\n';
      throw new Error('on purpose');
    }
    // The program sees the end of its input at about the same time, and may be the first: that is no success.
    for (let round = 0; round < 50; round += 1) {
      const error = await t.throwsAsync(
        box.run(BUSYBOX, ['cat'], { stdin: failing() }),
        code('ERR_EXEC_FAILED', /input/),
      );
      t.is(((error as MicroVMError).cause as Error).message, 'on purpose');
    }
    t.is((await box.run(BUSYBOX, ['echo', 'on'])).stdout, 'on\n', 'the sandbox goes on');
  },
);

ring3Test('a timeout ends a program and tells what it wrote', async (t) => {
  const box = await sandbox(t, { limits: { wallTime: 60_000 } });
  let error: MicroVMError | undefined;
  // It may be ended before it wrote anything: the others start at the same time.
  for (let timeout = 500; !error?.stdout; timeout *= 2) {
    error = await t.throwsAsync(box.run(BUSYBOX, LOOP, { timeout }), code('ERR_EXEC_TIMEOUT'));
  }
  t.like(error, { timedOut: true, stdout: 'begun\n', signal: 'SIGKILL', exitCode: undefined });
  const waits = await box.run(BUSYBOX, ['sleep', '100'], { timeout: 100, reject: false });
  t.like(waits, { timedOut: true, limit: 'wall-time', signal: 'SIGKILL' });
  const limited = await sandbox(t, { limits: { wallTime: 100 } });
  t.like(await limited.run(BUSYBOX, LOOP, { timeout: 60_000, reject: false }), { timedOut: true });
});

ring3Test('a signal ends a program, also one that waits for input, and never the next one', async (t) => {
  const box = await sandbox(t);
  const reason = new Error('enough');
  await t.throwsAsync(box.run(BUSYBOX, ['true'], { signal: AbortSignal.abort() }), code('ERR_EXEC_ABORTED'));
  const never = new Readable({ read() {} });
  for (const [args, stdin] of [[LOOP], [['cat'], never]] as const) {
    const abort = new AbortController();
    const running = box.run(BUSYBOX, args, { signal: abort.signal, ...(stdin && { stdin }) });
    setTimeout(() => abort.abort(reason), 100);
    const error = await t.throwsAsync(running, code('ERR_EXEC_ABORTED'));
    t.is((error as MicroVMError).cause, reason);
  }
  for (let round = 0; round < 20; round++) {
    const abort = new AbortController();
    const racing = box.run(BUSYBOX, ['true'], { signal: abort.signal });
    setTimeout(() => abort.abort(), round / 4);
    await racing.catch(() => {});
    t.is((await box.run(BUSYBOX, ['true'])).exitCode, 0);
  }
});

ring3Test('limits end a program and are named', async (t) => {
  const brief = await sandbox(t, { limits: { cpuTime: 100 } });
  t.like(await brief.run(BUSYBOX, LOOP, { reject: false }), { limit: 'cpu-time', signal: 'SIGKILL', timedOut: false });
  const box = await sandbox(t, { limits: { output: '1KiB', openFiles: 3 } });
  const flood = await box.run(BUSYBOX, ['yes'], { reject: false });
  t.is(flood.limit, 'output');
  t.true(flood.stdout.length <= 1024);
  await t.throwsAsync(box.run(BUSYBOX, ['yes']), code('ERR_EXEC_FAILED', /reached its limit \(output\)/));
  t.regex((await box.run(BUSYBOX, ['cat', '/tmp'], { reject: false })).stderr, /[Tt]oo many open files/);
});

ring3Test('a crash tells the signal and the place', async (t) => {
  const folder = await temporaryFolder(t);
  // mov eax, [0]
  const program = writeElf(path.join(folder, 'crash'), 0x8b, 0x04, 0x25, 0, 0, 0, 0);
  const box = await sandbox(t);
  const error = await t.throwsAsync(
    box.run(program),
    code('ERR_EXEC_FAILED', /ended by SIGSEGV at 0x400078, touching 0x0/),
  );
  t.like(error as MicroVMError, { signal: 'SIGSEGV', exitCode: undefined });
});

ring3Test('a program that wants to start another one is told apart', async (t) => {
  const box = await sandbox(t);
  const error = (await t.throwsAsync(box.run(BUSYBOX, ['sh', '-c', '(echo); exit 2']))) as MicroVMError;
  t.regex(error.hint ?? '', /cannot start other programs.*builtins/);
  t.true(Object.keys(error.unsupported ?? {}).some((name) => /fork|clone/.test(name)));
  t.is(
    (await box.run(BUSYBOX, ['sh', '-c', 'i=0; while [ $i -lt 3 ]; do echo $i; i=$((i+1)); done'])).stdout,
    '0\n1\n2\n',
  );
});

ring3Test('programs that cannot be run are refused with what is wrong with them', async (t) => {
  const folder = await temporaryFolder(t);
  const box = await sandbox(t);
  const write = (name: string, contents: string | Uint8Array): string => {
    writeFileSync(path.join(folder, name), contents);
    return path.join(folder, name);
  };
  await t.throwsAsync(box.run(path.join(folder, 'none')), code('ERR_PROGRAM_MISSING', /none cannot be read/));
  await t.throwsAsync(box.run(folder), code('ERR_PROGRAM_INVALID', /not a regular/));
  await t.throwsAsync(box.run(write('script', '#!/bin/sh\n')), code('ERR_PROGRAM_INVALID', /script/));
  await t.throwsAsync(box.run(write('text', 'hello')), code('ERR_PROGRAM_INVALID', /not an ELF/));
  await t.throwsAsync(
    box.run(write('cut', staticElf(...ENDLESS).slice(0, 100))),
    code('ERR_PROGRAM_INVALID', /truncated/),
  );
  await t.throwsAsync(box.run(process.execPath), code('ERR_PROGRAM_INVALID', /dynamically linked/));
  t.is((await box.run(BUSYBOX, ['true'])).exitCode, 0);
});

ring3Test('environment variables are those of the sandbox, and of the run over them', async (t) => {
  const box = await sandbox(t, { env: { A: 'a', B: 'b', C: 'c' } });
  t.is((await box.run(BUSYBOX, ['env'])).stdout, 'A=a\nB=b\nC=c\n');
  t.is((await box.run(BUSYBOX, ['env'], { env: { B: 'x', C: undefined } })).stdout, 'A=a\nB=x\n');
});

ring3Test('several sandboxes share a machine, and run at the same time', async (t) => {
  const platform = await Platform.open('kvm');
  t.teardown(() => platform.close());
  const boxes = await Promise.all(Array.from({ length: 6 }, () => sandbox(t, { platform, memory: '16MiB' })));
  const results = await Promise.all(
    boxes.map((box, index) =>
      box.run(BUSYBOX, ['sh', '-c', `echo ${index} > /tmp/f; read x < /tmp/f; echo $x`], {
        reject: false,
      }),
    ),
  );
  t.deepEqual(
    results.map(({ stdout }) => stdout),
    ['0\n', '1\n', '2\n', '3\n', '4\n', '5\n'],
  );
});

ring3Test('one program runs at a time, and closing ends it', async (t) => {
  const box = await UserSandbox.create();
  const running = box.run(BUSYBOX, LOOP);
  await t.throwsAsync(box.run(BUSYBOX, ['true']), code('ERR_RING3_BUSY'));
  await t.throwsAsync(box.reset(), code('ERR_RING3_BUSY'));
  const closed = box.close();
  await t.throwsAsync(running, code('ERR_RING3_CLOSED'));
  await closed;
  await box.close();
  await t.throwsAsync(box.run(BUSYBOX, ['true']), code('ERR_RING3_CLOSED'));
  await t.throwsAsync(box.reset(), code('ERR_RING3_CLOSED'));
});

test('every wrong option is listed at once, with what is allowed', async (t) => {
  const wrong = {
    memory: '1KiB',
    root: '',
    env: { 'A B': 'x' },
    cwd: 'tmp',
    limits: { cpuTime: 0, output: 'lots', openFiles: 2, stack: 70_000, time: 5 },
    platform: {},
    rooot: '/',
  } as object;
  const error = (await t.throwsAsync(UserSandbox.create(wrong), code('ERR_INVALID_OPTIONS'))) as MicroVMError;
  const paths = error.problems?.map(({ path: where }) => where);
  t.deepEqual(paths?.toSorted(), [
    'cwd',
    'env["A B"]',
    'limits.cpuTime',
    'limits.openFiles',
    'limits.output',
    'limits.stack',
    'limits.time',
    'memory',
    'platform',
    'rooot',
    'root',
  ]);
  t.regex(error.problems?.find(({ path: where }) => where === 'rooot')?.allowed ?? '', /did you mean root\?/);
  await t.throwsAsync(UserSandbox.create(5 as unknown as object), code('ERR_INVALID_OPTIONS', /an object of options/));
  await t.throwsAsync(UserSandbox.create(null as unknown as object), code('ERR_INVALID_OPTIONS'));
});

ring3Test('every wrong option of a run is listed at once', async (t) => {
  const box = await sandbox(t);
  const wrong = {
    stdin: 5,
    stdout: 'file',
    timeout: -1,
    signal: {},
    env: { '1': 'x' },
    encoding: 'latin1',
    reject: 'no',
    trace: 1,
    onSyscall: { names: ['opnat'], decide: 1, name: 'x' },
    std: 1,
  } as object;
  const error = (await t.throwsAsync(box.run('', ['a\0b'], wrong), code('ERR_INVALID_OPTIONS'))) as MicroVMError;
  const paths = error.problems?.map(({ path: where }) => where).toSorted();
  t.deepEqual(paths, [
    'args[0]',
    'encoding',
    'env["1"]',
    'file',
    'onSyscall.decide',
    'onSyscall.name',
    'onSyscall.names[0]',
    'reject',
    'signal',
    'std',
    'stdin',
    'stdout',
    'timeout',
    'trace',
  ]);
  t.regex(
    error.problems?.find(({ path: where }) => where.includes('names[0]'))?.allowed ?? '',
    /did you mean 'openat'\?/,
  );
  await t.throwsAsync(box.run(BUSYBOX, 'true' as unknown as string[]), code('ERR_INVALID_OPTIONS', /args/));
  await t.throwsAsync(box.run(BUSYBOX, [], null as unknown as object), code('ERR_INVALID_OPTIONS', /options/));
});

ring3Test('a root or a first folder that is not there is an error of create', async (t) => {
  await t.throwsAsync(UserSandbox.create({ root: '/no/such/folder' }), code('ERR_RING3_FILE', /\/no\/such\/folder/));
  await t.throwsAsync(UserSandbox.create({ cwd: '/no/such' }), code('ERR_EXEC_CWD', /\/no\/such/));
});
