// `microvm cp` without any guest: what it refuses, and how it says so.

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';

import { createRuntimeFolder } from '../../src/host/runtime-folder.ts';
import { microvm } from '../helpers/behaviours/command-line.ts';
import { startFixture } from '../helpers/fixture-process.ts';
import { privateRuntimeFolder } from '../helpers/guest.ts';

privateRuntimeFolder();

test.serial('words that make no copy are refused with what to type', async (t) => {
  for (const [words, says] of [
    [[], /takes a source and a target/],
    [['a', 'b'], /Neither side is in a machine.*\n.*microvm cp a NAME:b/],
    [['box:/a', 'web:/b'], /from machine to machine.*\n.*microvm cp box:\/a - \| microvm cp - web:\/b/],
    [['--json', '-', 'box:/b'], /--json and - do not go together/],
    [['--max-bytes', 'many', 'box:/a', 'b'], /--max-bytes takes a size such as 512MiB or 2GiB, or a number of bytes/],
    [['--max-entries', '1GiB', 'box:/a', 'b'], /--max-entries takes a whole number/],
    // Options that would do nothing.
    [['--exclude', 'x', '-', 'box:/b'], /--exclude does nothing .*\n.*tar c --exclude=PATTERN/],
    [['--archive', 'box:/a', '-'], /--archive does nothing .*\n.*tar xp/],
    [['--max-bytes', '1', 'a', 'box:/b'], /--max-bytes is for copies out of a machine/],
    [['--max-bytes', '1', '-', 'box:/b'], /--max-bytes is for copies out of a machine/],
    [['--max-bytes', '1', 'box:/a', '-'], /--max-bytes is for copies out of a machine to a path/],
    [['--max-entries', '1', 'a', 'box:/b'], /--max-entries is for copies out of a machine/],
    [['--max-entries', '1', 'box:/a', '-'], /--max-entries is for copies out of a machine to a path/],
    [['--exclud', 'x', 'box:/a', 'b'], /Did you mean --exclude/],
  ] as const) {
    const { exitCode, stderr, stdout } = await microvm(['cp', ...words]);
    t.is(exitCode, 125, words.join(' '));
    t.regex(stderr, says);
    t.regex(stderr, /See microvm cp --help/);
    t.is(stdout, '');
  }
});

test.serial('a machine that does not run, or is gone, is told apart', async (t) => {
  const none = await microvm(['cp', 'box:/a', 'b']);
  t.is(none.exitCode, 125);
  t.regex(none.stderr, /No running machine is named box .*ERR_MACHINE_NOT_FOUND.*\n.*No machine of yours is running/);
  const own = await createRuntimeFolder(undefined, { name: 'web' });
  t.teardown(() => own.remove());
  t.regex((await microvm(['cp', 'wbe:/a', 'b'])).stderr, /Did you mean web\? Running: web\./);
  const root = join(process.env['XDG_RUNTIME_DIR'] ?? '', 'microvm');
  const owner = await startFixture(t, 'hold-runtime-folder', root, 'gone');
  const { stdout, exitCode } = await microvm(['cp', '--json', 'gone:/a', 'b']);
  t.is(exitCode, 125);
  t.like(JSON.parse(stdout), { error: { code: 'ERR_SOCKET_FAILED' } }, 'it has no device yet');
  await owner.kill('SIGKILL');
  const gone = await microvm(['cp', 'gone:/a', 'b']);
  t.regex(gone.stderr, /owned the machine gone is gone.*ERR_MACHINE_EXITED.*\n.*microvm run --name gone/);
  await mkdir(join(root, '@odd'));
  await writeFile(join(root, '@odd/machine.json'), 'no json');
  t.regex((await microvm(['cp', 'odd:/a', 'b'])).stderr, /ERR_MACHINE_EXITED/);
});

test.serial('options that do something pass, with units for bytes', async (t) => {
  for (const words of [
    ['--max-bytes', '1.5GiB', '--max-entries', '5', '--exclude', '*.log', '-a', 'none:/a', 'b'],
    ['--max-bytes', '4096', 'none:/a', 'b'],
    ['--exclude', '*.log', 'none:/a', '-'],
    ['--archive', '-', 'none:/a'],
    ['--archive', '--exclude', '*.log', 'a', 'none:/a'],
  ]) {
    t.regex((await microvm(['cp', ...words])).stderr, /ERR_MACHINE_NOT_FOUND/, words.join(' '));
  }
});

test.serial('its help tells what goes where', async (t) => {
  const { stdout, exitCode } = await microvm(['cp', '--help']);
  t.is(exitCode, 0);
  t.regex(stdout, /microvm cp \[options\] SRC\|- NAME:DST\n  microvm cp \[options\] NAME:SRC DST\|-/);
  t.regex(stdout, /The machine has to be up/);
  t.regex((await microvm(['--help'])).stdout, /cp +Copies files and folders into a running machine/);
});
