// `microvm ring3` as a user meets it: streams, exit codes, JSON, the trace, interruption.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';

import { microvm } from '../helpers/behaviours/command-line.ts';
import { buildGlibcProgram, buildLua } from '../helpers/built-programs.ts';
import { whereRing3IsUnsupported } from '../helpers/odd-host.ts';
import { BUSYBOX, ring3Test } from '../helpers/ring3.ts';
import { writeElf } from '../helpers/static-elf.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const run = ['ring3', 'run'];

const refuses = test.macro<[args: readonly string[], ...patterns: RegExp[]]>({
  exec: async (t, args, ...patterns) => {
    const { stdout, stderr, exitCode } = await microvm(args);
    t.deepEqual([exitCode, stdout], [125, '']);
    for (const pattern of patterns) t.regex(stderr, pattern);
    t.notRegex(stderr, /\n\s+at /, 'no stack is shown for a mistake of the user');
  },
  title: (_, args) => `microvm ${args?.join(' ')} is refused with 125`,
});

test(refuses, ['ring3'], /Usage/, /ring3 takes a command/);
test(refuses, ['ring3', 'rum'], /Unknown command 'ring3 rum'/, /Did you mean run\?/);
test(refuses, ['ring3', '--jsn', 'list'], /Unknown option --jsn/);
test(refuses, ['ring3', 'run'], /No program to run/);
test(refuses, ['ring3', 'run', '--memroy', '1MiB', '--', 'x'], /Unknown option --memroy/, /--memory/);
test(refuses, ['ring3', 'run', '--timeout', 'soon', '--', 'x'], /--timeout takes a whole number/);
test(refuses, ['ring3', 'run', '--memory', 'lots', '--cwd', 'x', '--', 'x'], /memory: 'lots'/, /cwd: 'x'/);
test(refuses, ['ring3', 'list', 'all'], /Unexpected word 'all'/);

test('--help goes to stdout with 0', async (t) => {
  for (const args of [
    ['ring3', '--help'],
    ['help', 'ring3'],
    ['ring3', 'run', '-h'],
    ['ring3', 'list', '--help'],
  ]) {
    const { stdout, stderr, exitCode } = await microvm(args);
    t.deepEqual([exitCode, stderr], [0, ''], args.join(' '));
    t.regex(stdout, /Usage\n {2}microvm ring3 /);
  }
});

ring3Test('list tells which platforms work', async (t) => {
  const { stdout, exitCode } = await microvm(['ring3', 'list']);
  t.is(exitCode, 0);
  t.regex(stdout, /^kvm {2}works/m);
  const data = JSON.parse((await microvm(['ring3', 'list', '--json'])).stdout) as { name: string; usable: boolean }[];
  t.like(
    data.find(({ name }) => name === 'kvm'),
    { usable: true, facts: { mapUnit: 2 ** 24, minUserAddress: 4096 } },
  );
});

ring3Test('list and run tell why a host cannot', async (t) => {
  const refused = (args: readonly string[]): Promise<{ stdout: string; stderr: string; code?: number }> => {
    const [file, ...words] = whereRing3IsUnsupported([process.execPath, MAIN, 'ring3', ...args]);
    return promisify(execFile)(file, words).catch((error: { stdout: string; stderr: string; code: number }) => error);
  };
  const [found] = JSON.parse((await refused(['list', '--json'])).stdout) as { usable: boolean; error: object }[];
  t.like(found, { usable: false, error: { code: 'ERR_RING3_UNSUPPORTED' } });
  const { stdout, stderr, code } = await refused(['run', '--', BUSYBOX, 'true']);
  t.deepEqual([stdout, code], ['', 125]);
  t.regex(stderr, /Host is unsupported: KVM does not exchange registers/);
});

ring3Test('a static program of C runs with its arguments, variables and exit code', async (t) => {
  const program = await buildGlibcProgram(await temporaryFolder(t));
  const { stdout, stderr, exitCode } = await microvm([...run, '--env', 'HOME=/home', '--', program, 'x', 'y z']);
  t.deepEqual([stderr, exitCode], ['done\n', 7]);
  t.regex(stdout, /^arguments x y z; HOME=\/home\n[^]*\njumped 42\npid 2 uid 1000\n$/);
});

ring3Test('Lua runs a script under --root', async (t) => {
  const root = await temporaryFolder(t);
  const lua = await buildLua(root);
  const script = 'print(#arg, arg[1], io.read("n") * 2, string.format("%.6f", math.sin(1)))';
  writeFileSync(path.join(root, 'script.lua'), `${script}; os.exit(3)\n`);
  const answer = await microvm([...run, '--root', root, '--', lua, '/script.lua', 'first', '2nd'], '21\n');
  t.deepEqual(answer, { stdout: '2\tfirst\t42\t0.841471\n', stderr: '', exitCode: 3 });
});

ring3Test('output goes where it belongs, input comes in, and the exit code is the program’s', async (t) => {
  const line = 'read word; echo "$word $A $PWD"; echo err >&2; exit 7';
  const answer = await microvm([...run, '--env', 'A=1=2', '--cwd', '/tmp', '--', BUSYBOX, 'sh', '-c', line], 'hey\n');
  t.deepEqual(answer, { stdout: 'hey 1=2 /tmp\n', stderr: 'err\n', exitCode: 7 });
});

ring3Test('output comes as it is written', async (t) => {
  const child = spawn(process.execPath, [MAIN, ...run, '--', BUSYBOX, 'sh', '-c', 'echo ready; read word; echo $word']);
  child.stdout.setEncoding('utf8');
  const [first] = (await once(child.stdout, 'data')) as [string];
  t.is(first, 'ready\n');
  child.stdin.end('done\n');
  const [last] = (await once(child.stdout, 'data')) as [string];
  t.is(last, 'done\n');
  const [code] = (await once(child, 'exit')) as [number];
  t.is(code, 0);
});

ring3Test('a program reads what is under --root', async (t) => {
  const root = await temporaryFolder(t);
  writeFileSync(path.join(root, 'f'), 'hello\n');
  const { stdout } = await microvm([...run, '--root', root, '--', BUSYBOX, 'sha256sum', '/f']);
  t.is(stdout, '5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03  /f\n');
});

ring3Test('--trace prints system calls to standard error', async (t) => {
  const { stdout, stderr } = await microvm([...run, '--trace', '--', BUSYBOX, 'echo', 'hi']);
  t.is(stdout, 'hi\n');
  t.regex(stderr, /^write\(1, "hi\\n", 3\) = 3$/m);
  t.regex(stderr, /^exit_group\(0\) = \?$/m);
});

ring3Test('--json tells output, exit code and system calls, or the error', async (t) => {
  const { stdout, stderr, exitCode } = await microvm([...run, '--json', '--', BUSYBOX, 'sh', '-c', 'echo out; exit 2']);
  t.deepEqual([exitCode, stderr], [2, '']);
  t.like(JSON.parse(stdout) as object, { stdout: 'out\n', exitCode: 2, timedOut: false, unsupported: {} });
  const missing = await microvm([...run, '--json', '--', '/no/such/program']);
  t.is(missing.exitCode, 127);
  t.like((JSON.parse(missing.stdout) as { error: object }).error, { code: 'ERR_PROGRAM_MISSING' });
});

ring3Test('a time-out ends with 124, a signal with 128 and its number, a limit with 137', async (t) => {
  const late = await microvm([...run, '--timeout', '300', '--', BUSYBOX, 'sleep', '100']);
  t.is(late.exitCode, 124);
  t.regex(late.stderr, /longer than 300 ms/);
  const folder = await temporaryFolder(t);
  // ud2
  const crash = await microvm([...run, '--', writeElf(path.join(folder, 'crash'), 0x0f, 0x0b)]);
  t.is(crash.exitCode, 128 + 4);
});

ring3Test('a program that is missing ends with 127, one that cannot be run with 126', async (t) => {
  const folder = await temporaryFolder(t);
  t.is((await microvm([...run, '--', path.join(folder, 'none')])).exitCode, 127);
  writeFileSync(path.join(folder, 'script'), '#!/bin/sh\n', { mode: 0o755 });
  const script = await microvm([...run, '--', path.join(folder, 'script')]);
  t.is(script.exitCode, 126);
  t.regex(script.stderr, /script.*interpreter/);
});

ring3Test('a shell that wants to start a program is told that there are builtins only', async (t) => {
  const { stderr, exitCode } = await microvm([...run, '--', BUSYBOX, 'sh', '-c', '(echo); exit 3']);
  t.not(exitCode, 0);
  t.regex(stderr, /microvm: Programs here cannot start other programs.*builtins only/);
});

ring3Test('Ctrl-C ends a program with 130', async (t) => {
  const child = spawn(process.execPath, [MAIN, ...run, '--', BUSYBOX, 'sh', '-c', 'echo ready; while :; do :; done']);
  await once(child.stdout, 'data');
  child.kill('SIGINT');
  const [code] = (await once(child, 'exit')) as [number];
  t.is(code, 130);
});
