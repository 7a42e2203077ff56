// `microvm run` as a user meets it: streams, exit codes, JSON, interruption.

import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import test, { type ExecutionContext } from 'ava';

import { type AcceleratorName, PATIENCE_MS } from '../guest.ts';
import { temporaryFolder } from '../temporary-folder.ts';

export const MAIN: string = fileURLToPath(new URL('../../../src/cli/main.ts', import.meta.url));

interface Finished {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number | null;
}

/** Runs `microvm` with these words, in this folder, with these variables beside its own. */
export function microvm(
  args: readonly string[],
  input = '',
  cwd = '.',
  more: Readonly<Record<string, string>> = {},
): Promise<Finished> {
  return new Promise((resolve) => {
    const env = { ...process.env, ...more };
    const child = execFile(process.execPath, [MAIN, ...args], { cwd, env }, (_error, stdout, stderr) =>
      resolve({ stdout, stderr, exitCode: child.exitCode }),
    );
    child.stdin?.end(input);
  });
}

/** Declares the tests of `run` with a guest: its output, its exit code, its end. */
export function commandLineBehaviours(accelerator: AcceleratorName): void {
  const run = ['run', '--accelerator', accelerator, '--boot-timeout', String(PATIENCE_MS)];

  test.serial("output goes where it belongs and the exit code is the command's", async (t) => {
    t.deepEqual(await microvm([...run, '--', 'sh', '-c', 'echo out; echo err >&2; exit 7']), {
      stdout: 'out\n',
      stderr: 'err\n',
      exitCode: 7,
    });
  });

  test.serial("this host's programs run on the current folder, without any image", async (t) => {
    const folder = await temporaryFolder(t);
    await writeFile(join(folder, 'a file'), '');
    const words = [...run, '--mount', '.:/mnt', '--rootfs', 'host', '--'];
    // Not this Node: it may lie where the guest has a folder of its own, as in /tmp.
    const line = 'ls /mnt && getconf GNU_LIBC_VERSION';
    t.deepEqual(await microvm([...words, 'sh', '-c', line], '', folder), {
      stdout: `a file\n${execFileSync('getconf', ['GNU_LIBC_VERSION'], { encoding: 'utf8' })}`,
      stderr: '',
      exitCode: 0,
    });
  });

  test.serial('Ctrl-C stops the machine and exits with 130', async (t) => {
    const child = spawn(
      process.execPath,
      [MAIN, ...run, '--console', '--', 'sh', '-c', 'echo up > /dev/console; sleep 100'],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
    t.teardown(() => child.kill('SIGKILL'));
    const exited = once(child, 'exit');
    let seen = '';
    let isAsked = false;
    for await (const chunk of child.stderr) {
      seen += String(chunk);
      // Once: the second one is another matter.
      if (!isAsked && /up\r?\n/.test(seen)) isAsked = child.kill('SIGINT');
    }
    t.deepEqual(await exited, [130, null]);
  });
}

/** Declares the tests of what else `run` takes and does; each starts a process and a guest of its own. */
export function commandLineDetails(accelerator: AcceleratorName): void {
  const run = ['run', '--accelerator', accelerator, '--boot-timeout', String(PATIENCE_MS)];

  test.serial('standard input, variables, the user, the working folder and mounts are as with docker', async (t) => {
    const folder = await temporaryFolder(t);
    // Others may look into it, too.
    await chmod(folder, 0o755);
    await writeFile(join(folder, 'a file'), '');
    const line = 'read word; echo "$word $A $B $PWD $(id -u):$(id -g)"; ls; touch here 2>&1 | sed "s/.*: //"';
    const words = ['-i', '-e', 'A=1=2', '--env', 'B', '-u', 'nobody:7', '-v', `${folder}:/src:ro`, '-w', '/src'];
    const { stdout, stderr } = await microvm([...run, ...words, '--', 'sh', '-c', line], 'hey\n', '.', { B: 'b' });
    t.deepEqual({ stdout, stderr }, { stdout: 'hey 1=2 b /src 65534:7\na file\nRead-only file system\n', stderr: '' });
  });

  test.serial('--timeout ends with 124', async (t) => {
    const { exitCode, stderr } = await microvm([...run, '--timeout', '500', '--', 'sleep', '100']);
    t.is(exitCode, 124);
    t.regex(stderr, /500 ms/);
  });

  test.serial('--json tells output, exit code and timings', async (t) => {
    const { stdout, exitCode } = await microvm([...run, '--json', '--', 'no-such-program']);
    const data = JSON.parse(stdout) as Record<string, unknown>;
    t.is(exitCode, 127);
    t.is(data['exitCode'], 127);
    t.is(data['accelerator'], accelerator);
    t.like(data, { stdout: '', timedOut: false });
  });

  test.serial('output comes while the command runs, and a reader that leaves ends it', async (t) => {
    const child = spawn(process.execPath, [MAIN, ...run, '--', 'sh', '-c', 'echo first; exec yes'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.teardown(() => child.kill('SIGKILL'));
    const exited = once(child, 'exit');
    for await (const chunk of child.stdout) {
      t.true(String(chunk).startsWith('first\n'));
      break;
    }
    t.deepEqual(await exited, [141, null]);
  });

  /** A shell that counts in words which signals it hears, and ends by the one that it is told to. */
  const hearing = (t: ExecutionContext, ending: string): ChildProcess => {
    const traps = ['HUP', 'INT', 'QUIT', 'TERM', 'USR2'].map((name) =>
      name === ending ? `trap "echo ${name}; exit 9" ${name}` : `trap "echo ${name}" ${name}`,
    );
    const line = `${traps.join('; ')}; echo up; while :; do sleep 0.1; done`;
    // The shell tells on standard error that its `sleep` was hit, too.
    const child = spawn(process.execPath, [MAIN, ...run, '--', 'sh', '-c', line], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    t.teardown(() => child.kill('SIGKILL'));
    return child;
  };

  /** Sends one signal after the other, each when the command has heard the last; gives all that it said. */
  const send = async (child: ChildProcess, signals: readonly NodeJS.Signals[]): Promise<string[]> => {
    const heard: string[] = [];
    const left = [...signals];
    for await (const line of createInterface(child.stdout as NodeJS.ReadableStream)) {
      heard.push(line);
      const next = left.shift();
      if (next) child.kill(next);
    }
    return heard;
  };

  test.serial("signals are the command's, one after the other", async (t) => {
    const child = hearing(t, 'TERM');
    const exited = once(child, 'exit');
    const heard = await send(child, ['SIGHUP', 'SIGQUIT', 'SIGUSR2', 'SIGHUP', 'SIGINT', 'SIGTERM']);
    t.deepEqual(heard, ['up', 'HUP', 'QUIT', 'USR2', 'HUP', 'INT', 'TERM']);
    t.deepEqual(await exited, [9, null]);
  });

  for (const [signal, exitCode] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    test.serial(`a second ${signal} is not the command's: it stops the machine`, async (t) => {
      const child = hearing(t, '');
      const exited = once(child, 'exit');
      t.deepEqual(await send(child, [signal, signal]), ['up', signal.slice(3)]);
      t.deepEqual(await exited, [exitCode, null]);
    });
  }
}
