import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Hook, MicroVMError, type RunOptions, type SystemCall, type UserSandbox } from '../../src/ring3/index.ts';
import { BUSYBOX, ring3Test, sandbox } from '../helpers/ring3.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

const code = (code: string, message?: RegExp) => ({ instanceOf: MicroVMError, code, ...(message && { message }) });
const forever = new Promise<never>(() => {});

ring3Test('a hook sees the calls that it names, and no other', async (t) => {
  const root = await temporaryFolder(t);
  writeFileSync(path.join(root, 'f'), 'x');
  const box = await sandbox(t, { root });
  const seen: SystemCall[] = [];
  const decide = (call: SystemCall): undefined => void seen.push(call);
  const { stdout, syscalls } = await box.run(BUSYBOX, ['cat', '/f'], {
    onSyscall: { names: ['openat', 'write'], decide },
  });
  t.is(stdout, 'x');
  t.true(syscalls > seen.length);
  t.deepEqual([...new Set(seen.map(({ name }) => name))].toSorted(), ['openat', 'write']);
  const opened = seen.find(({ path: file }) => file === '/f');
  t.like(opened, { number: 257, name: 'openat' });
  t.is(opened?.args.length, 6);
  const written = seen.find(({ name }) => name === 'write');
  t.deepEqual([written?.path, written?.args[0], written?.args[2]], [undefined, 1n, 1n]);
});

ring3Test('a call is denied by the name or number of an error, or answered', async (t) => {
  const root = await temporaryFolder(t);
  writeFileSync(path.join(root, 'secret'), 'x');
  const box = await sandbox(t, { root });
  const deny = (error: string | number): Hook => ({
    names: ['openat'],
    decide: ({ path: file }) => (file === '/secret' ? { deny: error } : undefined),
  });
  for (const [error, words] of [
    ['EACCES', /Permission denied/],
    [24, /Too many open files/],
  ] as const) {
    const result = await box.run(BUSYBOX, ['cat', '/secret'], { reject: false, onSyscall: deny(error) });
    t.is(result.exitCode, 1);
    t.regex(result.stderr, words);
  }
  const answer = (value: bigint | number): Hook => ({ names: ['geteuid'], decide: () => ({ answer: value }) });
  for (const value of [42n, 43]) {
    t.is((await box.run(BUSYBOX, ['id', '-u'], { onSyscall: answer(value) })).stdout, `${value}\n`);
  }
});

ring3Test('a hook may take its time', async (t) => {
  const box = await sandbox(t);
  const decide = async (): Promise<{ answer: number }> => {
    await delay(20);
    return { answer: 7 };
  };
  t.is((await box.run(BUSYBOX, ['id', '-u'], { onSyscall: { names: ['geteuid'], decide } })).stdout, '7\n');
});

ring3Test('a hook that throws, rejects or decides nonsense ends the run and is reported', async (t) => {
  const box = await sandbox(t);
  const run = (decide: () => unknown, names = ['getuid']) =>
    box.run(BUSYBOX, ['id', '-u'], { reject: false, onSyscall: { names, decide: decide as Hook['decide'] } });
  const cause = new Error('on purpose');
  const throws = () => {
    throw cause;
  };
  for (const decide of [throws, () => Promise.reject(cause)]) {
    const error = await t.throwsAsync(run(decide), code('ERR_SYSCALL_HOOK', /failed at getuid: on purpose/));
    t.is((error as MicroVMError).cause, cause);
    t.is((error as MicroVMError).signal, 'SIGKILL');
  }
  for (const nonsense of [
    null,
    5,
    {},
    { deny: 'ENONSENSE' },
    { deny: 0 },
    { deny: 5000 },
    { answer: 2n ** 63n },
    { answer: 1.5 },
    { deny: 1, answer: 1 },
  ]) {
    await t.throwsAsync(
      run(() => nonsense),
      code('ERR_SYSCALL_HOOK'),
      JSON.stringify(nonsense, (_, value: unknown) => String(value)),
    );
  }
  t.is((await box.run(BUSYBOX, ['echo', 'on'])).stdout, 'on\n', 'the sandbox goes on');
});

ring3Test('a hook that never answers is ended by a timeout, a limit, a signal and closing', async (t) => {
  /** Runs what asks its hook, which does this and nothing more. */
  const run = (box: UserSandbox, whenAsked: () => void, options: Pick<RunOptions, 'signal' | 'timeout'> = {}) => {
    const decide = (): Promise<never> => {
      whenAsked();
      return forever;
    };
    return box.run(BUSYBOX, ['id', '-u'], { ...options, onSyscall: { names: ['getuid'], decide } });
  };
  const limited = await sandbox(t, { limits: { wallTime: 300 } });
  await t.throwsAsync(
    run(limited, () => {}),
    code('ERR_EXEC_TIMEOUT'),
  );
  const box = await sandbox(t);
  await t.throwsAsync(
    run(box, () => {}, { timeout: 50 }),
    code('ERR_EXEC_TIMEOUT'),
  );
  const abort = new AbortController();
  const { signal } = abort;
  await t.throwsAsync(
    run(box, () => abort.abort(), { signal }),
    code('ERR_EXEC_ABORTED'),
  );
  t.is((await box.run(BUSYBOX, ['echo', 'on'])).stdout, 'on\n');
  await t.throwsAsync(
    run(box, () => void box.close()),
    code('ERR_RING3_CLOSED'),
  );
});

ring3Test('an answer that comes too late is passed over', async (t) => {
  const box = await sandbox(t);
  let late: (decision: { answer: number }) => void = () => {};
  const decide = () => new Promise<{ answer: number }>((resolve) => (late = resolve));
  const first = box.run(BUSYBOX, ['id', '-u'], { timeout: 50, onSyscall: { names: ['getuid'], decide } });
  await t.throwsAsync(first, code('ERR_EXEC_TIMEOUT'));
  const second = box.run(BUSYBOX, ['id', '-u'], {
    onSyscall: {
      names: ['geteuid'],
      decide: async () => {
        late({ answer: 1 });
        await delay(5);
        return { answer: 2 };
      },
    },
  });
  t.is((await second).stdout, '2\n');
});
