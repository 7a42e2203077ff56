// What exec does in a real guest, for every accelerator.

import test from 'ava';

import { MicroVM, MicroVMError, type MicroVMOptions } from '../../../index.ts';
import { type AcceleratorName, PATIENCE_MS } from '../guest.ts';
import { metricsBehaviours } from './metrics.ts';

/** Declares the tests; one guest serves them all, one after another. */
export function execBehaviours(accelerator: AcceleratorName, options: MicroVMOptions = {}): void {
  let vm: MicroVM;

  test.before(async () => {
    vm = await MicroVM.create({
      accelerator,
      bootTimeout: PATIENCE_MS,
      env: { GREETING: 'good day', SHARED: 'machine' },
      hostname: 'patient',
      ...options,
    });
  });
  test.after.always(async () => {
    await vm?.kill();
  });

  test.serial('stdout, stderr and the exit code come back apart', async (t) => {
    const result = await vm.exec('sh', ['-c', 'echo out; echo err >&2; exit 7'], { reject: false });
    t.is(result.stdout, 'out\n');
    t.is(result.stderr, 'err\n');
    t.is(result.exitCode, 7);
    t.false(result.timedOut);
    t.true(result.durationMs > 0);
  });

  test.serial('it runs on a stock Debian kernel under the host name that was asked for', async (t) => {
    const { stdout } = await vm.exec('uname', ['-a']);
    t.regex(stdout, /^Linux patient \d+\.\d+\.\d+-\d+-cloud-amd64 .*x86_64/);
  });

  test.serial('another exit code than 0 rejects with the result', async (t) => {
    const error = await t.throwsAsync(vm.exec('sh', ['-c', 'echo some; exit 3']), { instanceOf: MicroVMError });
    t.is(error.code, 'ERR_EXEC_FAILED');
    t.is(error.exitCode, 3);
    t.is(error.stdout, 'some\n');
  });

  test.serial('arguments arrive as they are', async (t) => {
    const args = ['a b', "it's", '"q"', '$HOME', '`id`', '\\', '*', '', 'new\nline', 'ünï', ';', '#x', '-n'];
    const { stdout } = await vm.exec('printf', ['[%s]', ...args]);
    t.is(stdout, args.map((arg) => `[${arg}]`).join(''));
  });

  test.serial('with shell: true the command is a shell line', async (t) => {
    const { stdout } = await vm.exec('for i in 1 2 3; do echo $((i * i)); done | tail -n 1', { shell: true });
    t.is(stdout, '9\n');
  });

  test.serial("a command's environment is the machine's with the call's over it", async (t) => {
    const { stdout } = await vm.exec('sh', ['-c', 'echo "$GREETING|$SHARED|$PATH"'], { env: { SHARED: 'call' } });
    t.regex(stdout, /^good day\|call\|\/usr\/local\/sbin:/);
  });

  test.serial('cwd is where the command runs', async (t) => {
    t.is((await vm.exec('pwd', [], { cwd: '/proc/sys' })).stdout, '/proc/sys\n');
  });

  test.serial('a working folder that is not there is an error of its own', async (t) => {
    const error = await t.throwsAsync(vm.exec('pwd', [], { cwd: '/no/such' }), { instanceOf: MicroVMError });
    t.is(error.code, 'ERR_EXEC_CWD');
    t.true(error.message.includes('/no/such'));
    t.false(error.stderr?.includes('microvm-cwd'));
    await t.throwsAsync(vm.exec('pwd', [], { cwd: '/no/such', reject: false }), { code: 'ERR_EXEC_CWD' });
  });

  test.serial('a program that is not there gives 127, one that cannot be run 126', async (t) => {
    t.is((await vm.exec('no-such-program', [], { reject: false })).exitCode, 127);
    t.is((await vm.exec('/etc/passwd', [], { reject: false })).exitCode, 126);
  });

  test.serial('a command that dies by a signal answers 128 + signal', async (t) => {
    t.is((await vm.exec('sh', ['-c', 'kill -TERM $$'], { reject: false })).exitCode, 143);
    t.is((await vm.exec('sh', ['-c', 'kill -KILL $$'], { reject: false })).exitCode, 137);
  });

  test.serial('output of a mebibyte of any bytes comes back whole', async (t) => {
    const { stdout } = await vm.exec('sh', ['-c', 'head -c 1048576 /dev/urandom | tee /tmp/noise; sync'], {
      encoding: 'buffer',
    });
    t.is(stdout.length, 1_048_576);
    const { createHash } = await import('node:crypto');
    const { stdout: sum } = await vm.exec('sha256sum', ['/tmp/noise']);
    t.is(sum.split(' ')[0], createHash('sha256').update(stdout).digest('hex'));
  });

  test.serial('standard input is empty, or what was given', async (t) => {
    t.is((await vm.exec('cat')).stdout, '');
    t.is((await vm.exec('cat', [], { input: "it's\n$HOME\n" })).stdout, "it's\n$HOME\n");
    const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, index) => (index * 31) % 256));
    const { stdout } = await vm.exec('cat', [], { input: bytes, encoding: 'buffer' });
    t.deepEqual(stdout, bytes);
  });

  test.serial('calls made at once answer each their own', async (t) => {
    const results = await Promise.all(Array.from({ length: 20 }, (_, index) => vm.exec('echo', [String(index)])));
    t.deepEqual(
      results.map(({ stdout }) => stdout),
      Array.from({ length: 20 }, (_, index) => `${index}\n`),
    );
  });

  test.serial('a command that runs too long is killed with its children, and the machine stays usable', async (t) => {
    const error = await t.throwsAsync(vm.exec('sh', ['-c', 'sleep 1234 & sleep 1234'], { timeout: 300 }), {
      instanceOf: MicroVMError,
    });
    t.is(error.code, 'ERR_EXEC_TIMEOUT');
    t.true(error.timedOut);
    const { stdout } = await vm.exec('sh', ['-c', "ps | grep -c '[s]leep 1234' || true"]);
    t.is(stdout, '0\n');
  });

  test.serial('a timeout does not reject with reject: false', async (t) => {
    const result = await vm.exec('sleep', ['1234'], { timeout: 200, reject: false });
    t.true(result.timedOut);
    t.is(result.exitCode, undefined);
  });

  test.serial('an aborted command is killed, and the machine stays usable', async (t) => {
    const abort = new AbortController();
    const running = vm.exec('sh', ['-c', 'sleep 4321'], { signal: abort.signal });
    const waiting = vm.exec('echo', ['next']);
    abort.abort();
    const error = await t.throwsAsync(running, { instanceOf: MicroVMError });
    t.is(error.code, 'ERR_EXEC_ABORTED');
    t.is((await waiting).stdout, 'next\n');
  });

  test.serial('an abort does not reject with reject: false', async (t) => {
    const abort = new AbortController();
    const running = vm.exec('echo begun; sleep 4321', { signal: abort.signal, reject: false });
    for await (const line of running) {
      t.is(line, 'begun');
      abort.abort();
    }
    t.like(await running, { isCanceled: true, timedOut: false, exitCode: undefined, stdout: 'begun\n' });
    const before = await vm.exec('true', { signal: AbortSignal.abort(), reject: false });
    t.like(before, { isCanceled: true, exitCode: undefined, stdout: '' });
  });

  test.serial('one string is a line for the shell, and a list never is', async (t) => {
    t.is((await vm.exec('echo $((6 * 7)) | sed s/^/is:/')).stdout, 'is:42\n');
    t.is((await vm.exec('cat; exit 0', { input: 'from here' })).stdout, 'from here');
    t.is((await vm.exec('uname')).stdout, 'Linux\n');
    t.is((await vm.exec('echo', ['$HOME; exit 3'])).stdout, '$HOME; exit 3\n');
    await t.throwsAsync(vm.exec('echo hi', []), { message: /echo hi: not found/ });
    await t.throwsAsync(vm.exec('echo hi', { shell: false }), { message: /echo hi: not found/ });
  });

  test.serial('an already aborted signal runs nothing', async (t) => {
    await t.throwsAsync(vm.exec('touch', ['/tmp/must-not-exist'], { signal: AbortSignal.abort() }), {
      code: 'ERR_EXEC_ABORTED',
    });
    t.is((await vm.exec('ls', ['/tmp/must-not-exist'], { reject: false })).exitCode, 1);
  });

  test.serial('a command that is over the cap is refused and nothing is sent', async (t) => {
    const error = await t.throwsAsync(vm.exec('true', ['x'.repeat(17 * 1024 * 1024)]), { instanceOf: MicroVMError });
    t.is(error.code, 'ERR_COMMAND_TOO_LARGE');
    t.is((await vm.exec('echo', ['still here'])).stdout, 'still here\n');
  });

  test.serial('a background process that keeps the output open does not hold the answer back', async (t) => {
    const { stdout } = await vm.exec('sh', ['-c', 'sleep 600 & echo started'], { timeout: 60_000 });
    t.is(stdout, 'started\n');
    await vm.exec('kill $(pidof sleep)', { shell: true });
  });

  test.serial('orphans are reaped: no zombie is left in the guest', async (t) => {
    // They hold the FIFO's writing end: its end is theirs.
    const orphans = 'for i in 1 2 3 4 5; do (sh -c "exit 0" &); done';
    await vm.exec(`mkfifo /tmp/held; exec 3<>/tmp/held 4</tmp/held; ${orphans}; exec 3>&-; cat <&4; rm /tmp/held`);
    const zombies = async (): Promise<string[]> => {
      const { stdout } = await vm.exec("grep -l '^State:.*zombie' /proc/[0-9]*/status", { reject: false });
      return stdout.trim().split('\n').filter(Boolean);
    };
    // Everything is one for a moment; who still is after one more command was passed over.
    const before = new Set(await zombies());
    t.deepEqual(
      (await zombies()).filter((zombie) => before.has(zombie)),
      [],
    );
  });

  test.serial('the guest has what programs expect', async (t) => {
    const { stdout } = await vm.exec('sh', ['-c', "cut -d' ' -f2 /proc/mounts; ip link show lo"]);
    for (const folder of ['/proc', '/sys', '/dev', '/dev/pts', '/dev/shm', '/tmp', '/run', '/sys/fs/cgroup']) {
      t.true(stdout.split('\n').includes(folder), `${folder} is mounted`);
    }
    t.regex(stdout, /lo: <LOOPBACK,UP,LOWER_UP>/);
    t.is((await vm.exec('sh', ['-c', 'head -c 4 /dev/hwrng | wc -c'])).stdout, '4\n');
  });

  test.serial('timings tell every phase', (t) => {
    for (const phase of ['machine', 'boot', 'total'] as const) t.true(vm.timings[phase] > 0, phase);
    t.true(vm.timings.boot < vm.timings.total);
  });

  metricsBehaviours(accelerator, () => vm, options.vsock);
}
