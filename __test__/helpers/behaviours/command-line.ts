// `microvm run` as a user meets it: streams, exit codes, JSON, interruption.

import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import test from 'ava';

import { type AcceleratorName, PATIENCE_MS } from '../guest.ts';
import { temporaryFolder } from '../temporary-folder.ts';

export const MAIN: string = fileURLToPath(new URL('../../../src/cli/main.ts', import.meta.url));

interface Finished {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number | null;
}

/** Runs `microvm` with these words, in this folder. */
export function microvm(args: readonly string[], input = '', cwd = '.'): Promise<Finished> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [MAIN, ...args], { cwd }, (_error, stdout, stderr) =>
      resolve({ stdout, stderr, exitCode: child.exitCode }),
    );
    child.stdin?.end(input);
  });
}

/** Declares the tests of `run` with a guest: its output, its exit code, its end. */
export function commandLineBehaviours(accelerator: AcceleratorName): void {
  const run = ['run', '--accelerator', accelerator];

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
    const words = [...run, '--boot-timeout', String(PATIENCE_MS), '--mount', '.:/mnt', '--rootfs', 'host', '--'];
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
    let seen = '';
    for await (const chunk of child.stderr) {
      seen += String(chunk);
      if (seen.includes('up')) child.kill('SIGINT');
    }
    if (child.exitCode === null) await once(child, 'exit');
    t.is(child.exitCode, 130);
  });
}

/** Declares the tests of what else `run` takes and does; each starts a process and a guest of its own. */
export function commandLineDetails(accelerator: AcceleratorName): void {
  const run = ['run', '--accelerator', accelerator];

  test.serial('-i passes standard input on, --env and --cwd reach the command', async (t) => {
    const line = 'read word; echo "$word $A $PWD"';
    const { stdout } = await microvm(
      [...run, '-i', '--env', 'A=1=2', '--cwd', '/tmp', '--', 'sh', '-c', line],
      'hey\n',
    );
    t.is(stdout, 'hey 1=2 /tmp\n');
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

  test.serial("signals are the command's", async (t) => {
    const child = spawn(
      process.execPath,
      [MAIN, ...run, '--', 'sh', '-c', 'trap "echo heard; exit 9" TERM; echo up; while :; do sleep 0.1; done'],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    t.teardown(() => child.kill('SIGKILL'));
    const exited = once(child, 'exit');
    let seen = '';
    for await (const chunk of child.stdout) {
      seen += String(chunk);
      if (seen === 'up\n') child.kill('SIGTERM');
    }
    t.is(seen, 'up\nheard\n');
    t.deepEqual(await exited, [9, null]);
  });
}
