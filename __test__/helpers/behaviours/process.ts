// A command as a process, in a real guest: its streams, its signals, its terminal, its end, for every accelerator.

import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import test from 'ava';

import { type ExecOptions, type ExecResult, MicroVM, MicroVMError, type MicroVMOptions } from '../../../index.ts';
import { type AcceleratorName, PATIENCE_MS, privateRuntimeFolder } from '../guest.ts';
import { holdings } from '../leftovers.ts';

/** The soak takes hours, and has room for numbers that would take minutes of the lab's. */
const IS_SOAK = process.env['MICROVM_SOAK'] !== undefined;
const OUTPUT_MIB = IS_SOAK ? 1024 : 24;
const IN_A_ROW = IS_SOAK ? 1000 : 100;
const AT_ONCE = IS_SOAK ? 200 : 100;
/** With five descriptors each they take more than the limit that programs begin with; in the lab each takes a while. */
const MANY = 250;
/** A limit of its own puts ava's off for all other tests: only where there is need. */
const SOAK_MS = 60 * 60_000;
/** What this process may take for output that it does not keep: far below what it reads in the soak. */
const MEMORY_MIB = 128;

/** Declares the tests; one guest serves them all, one after another. */
export function processBehaviours(accelerator: AcceleratorName, options: MicroVMOptions = {}): void {
  privateRuntimeFolder();
  const atOnce = accelerator === 'kvm' && !IS_SOAK ? 50 : MANY;
  let vm: MicroVM;

  test.before(async () => {
    vm = await MicroVM.create({ accelerator, bootTimeout: PATIENCE_MS, ...options });
  });
  test.after.always(async () => {
    await vm?.kill();
  });

  /** How many processes of the guest have this word in their command line; brackets keep the search from finding itself. */
  const running = async (word: string): Promise<number> => {
    const pattern = word.replace(/^./, '[$&]');
    const { stdout } = await vm.exec(`ps | grep -c '${pattern}'`, { shell: true, reject: false });
    return Number(stdout);
  };

  /** Runs into a timeout that leaves a line the time to say `begun`, which it does when it is ready for it. */
  const runLate = async (line: string, options: Pick<ExecOptions, 'killGrace' | 'detached'>): Promise<ExecResult> => {
    for (let timeout = 400; ; timeout *= 2) {
      const result = await vm.exec(line, { ...options, shell: true, timeout, reject: false });
      if (result.stdout.includes('begun\n')) return result;
    }
  };

  test.serial('it can be read while it runs, line by line, and written to', async (t) => {
    const echo = vm.exec('while read word; do echo "got $word"; done', { shell: true });
    const lines = echo[Symbol.asyncIterator]();
    echo.stdin.write('one\n');
    t.deepEqual(await lines.next(), { done: false, value: 'got one' });
    echo.stdin.write('two\r\nthree\n');
    t.deepEqual(await lines.next(), { done: false, value: 'got two' });
    t.deepEqual(await lines.next(), { done: false, value: 'got three' });
    echo.stdin.end('four\n');
    t.deepEqual(await lines.next(), { done: false, value: 'got four' });
    t.true((await lines.next()).done);
    t.is((await echo).stdout, 'got one\ngot two\r\ngot three\ngot four\n');
  });

  test.serial('standard input may be text, bytes, a stream or anything that can be iterated', async (t) => {
    const bytes = Buffer.from(Array.from({ length: 70_000 }, (_, index) => (index * 7) % 256));
    const sum = createHash('sha256').update(bytes).digest('hex');
    async function* pieces(): AsyncGenerator<Uint8Array> {
      for (let start = 0; start < bytes.length; start += 9_999) yield bytes.subarray(start, start + 9_999);
    }
    for (const stdin of [bytes, Readable.from(pieces()), pieces(), new Blob([bytes]).stream(), [bytes, '']]) {
      const { stdout } = await vm.exec('sha256sum', { stdin });
      t.is(stdout.split(' ')[0], sum);
    }
    t.is((await vm.exec('cat', { stdin: 'text' })).stdout, 'text');
    t.is((await vm.exec('cat', { stdin: [] })).stdout, '');
  });

  test.serial('standard input that fails ends the command, and one that nobody takes holds nothing up', async (t) => {
    const broken = Readable.from(
      (async function* () {
        yield 'some';
        throw new Error('The disk is on fire');
      })(),
    );
    const error = await t.throwsAsync(Promise.resolve(vm.exec('cat', { stdin: broken })), {
      instanceOf: MicroVMError,
      code: 'ERR_EXEC_STDIN',
    });
    t.is((error?.cause as Error | undefined)?.message, 'The disk is on fire');
    t.is((await vm.exec('echo', ['done'], { stdin: Buffer.alloc(4_000_000) })).stdout, 'done\n');
  });

  test.serial('several run at once, each with its own streams', async (t) => {
    const first = vm.exec('read line; echo "$line"', { shell: true });
    first.stdin.write('still ');
    t.is((await vm.exec('echo', ['meanwhile'])).stdout, 'meanwhile\n');
    first.stdin.end('there\n');
    t.is((await first).stdout, 'still there\n');
  });

  test.serial('a signal reaches it and its children, and is told', async (t) => {
    const sleeper = vm.exec('sh', ['-c', 'sleep 7777; echo not reached'], { reject: false });
    t.true((await sleeper.pid) > 1);
    t.true(await sleeper.kill('SIGINT'));
    t.like(await sleeper, { signal: 'SIGINT', exitCode: 130, stdout: '', timedOut: false });
    t.false(await sleeper.kill(), 'one that has ended takes no signal');
    t.is(await running('sleep 7777'), 0);
    const error = await t.throwsAsync(Promise.resolve(vm.exec('kill -KILL $$', { shell: true })), {
      instanceOf: MicroVMError,
    });
    t.regex(error?.message ?? '', /ended by SIGKILL: kill -KILL/);
    await t.throwsAsync(vm.exec('sleep', ['1']).kill('SIGNOT' as never), { code: 'ERR_INVALID_OPTIONS' });
  });

  test.serial('an error shows the command and the last lines that it said', async (t) => {
    const error = await t.throwsAsync(
      Promise.resolve(vm.exec('for i in 1 2 3; do echo "line $i" >&2; done; exit 4', { shell: true })),
      { instanceOf: MicroVMError, code: 'ERR_EXEC_FAILED' },
    );
    t.regex(error?.message ?? '', /exit code 4: for i in .*\nline 1\nline 2\nline 3$/s);
  });

  test.serial('a timeout ends all that it started, those that do not listen to SIGTERM too', async (t) => {
    const line = `trap '' TERM; (trap '' TERM; setsid sleep 6666) & echo begun; sleep 6666`;
    const result = await runLate(line, { killGrace: 200 });
    t.like(result, { timedOut: true, exitCode: undefined, signal: 'SIGKILL' });
    t.is(await running('sleep 6666'), 0);
  });

  test.serial('its output is a Web stream too', async (t) => {
    const pieces: Uint8Array[] = [];
    for await (const piece of vm.exec('seq', ['1000']).readable) pieces.push(piece);
    t.is(Buffer.concat(pieces).toString(), Array.from({ length: 1000 }, (_, index) => `${index + 1}\n`).join(''));
  });

  test.serial('a timeout gives a detached command its grace too', async (t) => {
    const line = `trap 'echo asked; exit 4' TERM; echo begun; sleep 1000 & wait`;
    t.like(await runLate(line, { detached: true }), { timedOut: true, stdout: 'begun\nasked\n' });
  });

  test.serial('leaving its lines early ends it', async (t) => {
    for await (const line of vm.exec('echo first; exec sleep 5555', { shell: true })) {
      t.is(line, 'first');
      break;
    }
    t.is(await running('sleep 5555'), 0);
  });

  test.serial('a daemon lives on, and a detached command survives its abort', async (t) => {
    await vm.exec('setsid sleep 4444 > /dev/null 2>&1 &', { shell: true });
    t.is(await running('sleep 4444'), 1);
    const abort = new AbortController();
    const detached = vm.exec('sleep', ['3333'], { detached: true, signal: abort.signal });
    await detached.pid;
    abort.abort();
    await t.throwsAsync(Promise.resolve(detached), { code: 'ERR_EXEC_ABORTED' });
    t.is(await running('sleep 3333'), 1);
    await vm.exec('kill $(pidof sleep)', { shell: true });
  });

  test.serial('one that closes its output early is still waited for', async (t) => {
    const result = await vm.exec('echo out; exec >&- 2>&-; sleep 0.3; exit 5', { shell: true, reject: false });
    t.like(result, { stdout: 'out\n', exitCode: 5 });
    t.true(result.durationMs >= 300);
  });

  test.serial(`${OUTPUT_MIB} MiB of any bytes come whole and in order, and a slow reader holds them up`, async (t) => {
    if (IS_SOAK) t.timeout(SOAK_MS);
    const block = randomBytes(2 ** 20);
    await vm.fs.writeFile('/tmp/block', block);
    const expected = createHash('sha256');
    for (let index = 1; index <= OUTPUT_MIB; index += 1) expected.update(`${index}\n`).update(block);
    const process = vm.exec(`for i in $(seq ${OUTPUT_MIB}); do echo $i; cat /tmp/block; done; echo end >&2`, {
      shell: true,
      buffer: false,
    });
    const { stdout } = process;
    await once(stdout, 'readable');
    const before = globalThis.process.memoryUsage().arrayBuffers;
    await new Promise((resolve) => setTimeout(resolve, 300));
    t.true(globalThis.process.memoryUsage().arrayBuffers - before < 4 * 1024 * 1024);
    const seen = createHash('sha256');
    const memory = { first: await anonymousMib(), most: 0 };
    let pieces = 0;
    for await (const piece of stdout) {
      seen.update(piece as Buffer);
      if (pieces++ % 256 === 0) memory.most = Math.max(memory.most, await anonymousMib());
    }
    t.is(seen.digest('hex'), expected.digest('hex'));
    t.true(memory.most - memory.first < MEMORY_MIB, `from ${memory.first} to ${memory.most} MiB`);
    t.like(await process, { exitCode: 0, stdout: '' });
    t.is((await vm.exec('true')).stdout, '');
  });

  test.serial('it runs as another user, who has a home and groups', async (t) => {
    const { stdout } = await vm.exec('id -u; id -g; echo $HOME; id -un', { shell: true, user: 'nobody' });
    t.regex(stdout, /^65534\n65534\n\/\w*\S*\nnobody\n$/);
    t.is((await vm.exec('id -u; id -g', { shell: true, user: 4242, group: 17 })).stdout, '4242\n17\n');
    const reopened = vm.exec('cat /dev/stdin > /dev/stdout', { shell: true, user: 'nobody', input: 'own streams' });
    t.is((await reopened).stdout, 'own streams');
    const onTerminal = vm.exec('echo yes > $(tty)', { shell: true, user: 'nobody', pty: { cols: 80, rows: 24 } });
    t.is((await onTerminal).stdout, 'yes\r\n');
    await t.throwsAsync(Promise.resolve(vm.exec('id', { user: 'no-such-user' })), {
      code: 'ERR_EXEC_START',
      message: /no user no-such-user/,
    });
  });

  test.serial('without input it reads the empty device, which stays everybody’s', async (t) => {
    for (const options of [{}, { input: '' }, { user: 'nobody' }]) {
      const { stdout } = await vm.exec('readlink /proc/self/fd/0; wc -c; test ! -t 0', { shell: true, ...options });
      t.is(stdout, '/dev/null\n0\n');
    }
    t.like(await vm.fs.stat('/dev/null'), { uid: 0, gid: 0, mode: 0o020_666 });
  });

  test.serial('signals are not ignored, whatever the agent ignores', async (t) => {
    const { stdout } = await vm.exec('grep', ['-E', '^Sig(Ign|Blk)', '/proc/self/status']);
    t.regex(stdout, /^SigBlk:\t0{16}\nSigIgn:\t0{16}\n$/);
  });

  test.serial('nothing of the host is in its environment', async (t) => {
    process.env['HOST_SECRET'] = 'hidden';
    const { stdout } = await vm.exec('env', { env: { OWN: 'yes' } });
    t.deepEqual(stdout.trim().split('\n').toSorted(), [
      'HOME=/root',
      'OWN=yes',
      'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    ]);
  });

  test.serial('a terminal has its size, tells of a new one, and Ctrl-C interrupts', async (t) => {
    const shell = vm.exec('sh', ['-c', 'trap "stty size" WINCH; stty size; while :; do sleep 0.1; done'], {
      pty: { cols: 81, rows: 25 },
      stdin: 'pipe',
      reject: false,
    });
    const lines = shell[Symbol.asyncIterator]();
    t.is((await lines.next()).value, '25 81');
    t.true(await shell.resize({ cols: 100, rows: 40 }));
    t.is((await lines.next()).value, '40 100');
    shell.stdin.write('\u0003');
    while (!(await lines.next()).done);
    t.like(await shell, { signal: 'SIGINT', stderr: '' });
  });

  test.serial('a shell on a terminal has job control, and Ctrl-D ends it', async (t) => {
    const shell = vm.exec('sh', ['-i'], { pty: { cols: 80, rows: 24 }, reject: false });
    shell.stdin.write('sh -c "echo begun; exec sleep 2222"\n');
    let seen = '';
    const says = async (pattern: RegExp): Promise<void> => {
      for await (const piece of shell.stdout.iterator({ destroyOnReturn: false })) {
        seen += String(piece);
        if (pattern.test(seen)) return;
      }
      t.fail(`The shell ended before it said ${pattern}: ${seen}`);
    };
    await says(/\nbegun\r\n/);
    shell.stdin.write('\u001a');
    await says(/Stopped|\[1\]/);
    shell.stdin.write('kill -KILL %1; wait; echo $((6 * 7))\n');
    // The end of input is one for a shell that waits at its prompt; what comes before is the terminal's to interpret.
    await says(/\n42\r\n[^]*\/ # /);
    shell.stdin.write('\u0004');
    t.is((await shell).signal, undefined);
    t.regex((await vm.exec('tty', { pty: { cols: 80, rows: 24 } })).stdout, /^\/dev\/pts\/\d+\r\n$/);
    t.is((await vm.exec('cat', { pty: { cols: 80, rows: 24 }, input: 'to the end' })).exitCode, 0);
  });

  test.serial(`${IN_A_ROW} in a row and ${AT_ONCE} at once leave nothing in the guest or here`, async (t) => {
    if (IS_SOAK) t.timeout(SOAK_MS);
    /** The agent's descriptors, zombies, control groups, and programs: threads of the kernel have no executable. */
    const inGuest = async (): Promise<string[]> => {
      const line = `ls /proc/1/fd | wc -l; grep -h '^State:.*zombie' /proc/[0-9]*/status | wc -l; ls -d /sys/fs/cgroup/microvm-api/*/ | wc -l; ls -l /proc/[0-9]*/exe 2>&1 | grep -c -e '->'`;
      return (await vm.exec(line, { shell: true, reject: false })).stdout.split('\n');
    };
    // What is made once and kept, such as the guest's kernel threads, is there after a first round.
    await Promise.all(Array.from({ length: 20 }, () => vm.exec('true')));
    const here = await holdings();
    const there = await inGuest();
    t.is(there[1], '0', 'zombies');
    const echo = async (index: number): Promise<boolean> =>
      (await vm.exec('echo', [String(index)])).stdout === `${index}\n`;
    for (let index = 0; index < IN_A_ROW; index += 1) t.true(await echo(index));
    const answers = await Promise.all(Array.from({ length: AT_ONCE }, (_, index) => echo(index)));
    t.true(answers.every(Boolean));
    t.deepEqual(await holdings(), here);
    t.deepEqual(await inGuest(), there);
  });

  test.serial(`${atOnce} that run on need no more than room, and find the usual limits`, async (t) => {
    t.is((await vm.exec('ulimit -Sn; ulimit -Hn', { shell: true })).stdout, '1024\n524288\n');
    const commands = Array.from({ length: atOnce }, () => vm.exec('cat', { stdin: 'pipe' }));
    for (const command of commands) void command.stdin;
    await Promise.all(commands.map(({ pid }) => pid));
    for (const [index, command] of commands.entries()) command.stdin.end(`${index}`);
    const outputs = await Promise.all(commands.map(async (command) => (await command).stdout));
    t.deepEqual(
      outputs,
      outputs.map((_, index) => `${index}`),
    );
  });

  test.serial(
    'a command that the kernel kills for want of memory is told as such, and the guest goes on',
    async (t) => {
      // A single argument that grows without end: tail keeps the last line, and there is only one.
      const error = await t.throwsAsync(Promise.resolve(vm.exec('tail', ['/dev/zero'])), { instanceOf: MicroVMError });
      t.like(error, { code: 'ERR_EXEC_FAILED', signal: 'SIGKILL', oomKilled: true });
      t.regex(error?.message ?? '', /out of memory/);
      const killed = await vm.exec('sleep', ['1000'], { reject: false, timeout: 300, killGrace: 1 });
      t.like(killed, { timedOut: true, oomKilled: false });
      t.is((await vm.exec('echo', ['still here'])).stdout, 'still here\n');
    },
  );

  test.serial('a machine that is stopped ends what runs with its reason', async (t) => {
    const sleeping = t.throwsAsync(Promise.resolve(vm.exec('sleep', ['1111'])), { code: 'ERR_MACHINE_EXITED' });
    const streaming = vm.exec('sleep', ['1111']).stdout;
    await vm.exec('true');
    t.deepEqual(await vm.stop({ timeout: PATIENCE_MS }), { reason: 'power-off' });
    await sleeping;
    await t.throwsAsync(streaming.toArray(), { code: 'ERR_MACHINE_EXITED' });
    await t.throwsAsync(Promise.resolve(vm.exec('true')), { code: 'ERR_MACHINE_EXITED' });
  });
}

/** Memory of this process alone, which the guest's is not. */
async function anonymousMib(): Promise<number> {
  const [, kibibytes] = /^RssAnon:\s+(\d+) kB$/m.exec(await readFile('/proc/self/status', 'utf8')) ?? [];
  return Number(kibibytes) / 1024;
}
