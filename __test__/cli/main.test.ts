// What `microvm` answers without ever starting a guest.

import test from 'ava';

import { microvm } from '../helpers/behaviours/command-line.ts';

const refuses = test.macro<[args: readonly string[], ...patterns: RegExp[]]>({
  exec: async (t, args, ...patterns) => {
    const { stdout, stderr, exitCode } = await microvm(args);
    t.is(exitCode, 125);
    t.is(stdout, '');
    for (const pattern of patterns) t.regex(stderr, pattern);
    t.notRegex(stderr, /\n\s+at /, 'no stack is shown for a mistake of the user');
  },
  title: (_, args) => `microvm ${args?.join(' ')} is refused with 125`,
});

test(refuses, ['rum'], /Unknown command 'rum'/, /Did you mean run\?/);
test(refuses, ['run', '--memroy', '1GiB', '--', 'true'], /Unknown option --memroy/, /--memory/);
test(refuses, ['run', '--cpus', 'two', '--', 'true'], /--cpus takes a whole number, not 'two'/);
test(refuses, ['run', '--cpus', '0', '--', 'true'], /cpus/);
test(refuses, ['run', '--memory', '3', '--', 'true'], /memory/);
test(refuses, ['run', '--accelerator', 'hvf', '--', 'true'], /accelerator/, /tcg/);
test(refuses, ['run', '--kernel', '/no/such/kernel', '--', 'true'], /ERR_KERNEL_MISSING/);
test(refuses, ['run', '--kernel', '/etc/passwd', '--', 'true'], /ERR_KERNEL_/);
test(refuses, ['run', '--rootfs', '/no/such/folder', '--', 'true'], /ERR_ROOTFS_MISSING/);
test(refuses, ['run', '--timeout', '0', '--', 'true'], /timeout/);
test(refuses, ['run', '--cwd', '', '--', 'true'], /cwd/);
test(refuses, ['run', '-it', '--', 'sh'], /no terminal/);
test(refuses, ['run', '-t', '--json', '--', 'sh'], /--json and --tty/);
test(refuses, ['run'], /No command to run/);
test(refuses, ['cache', 'cleen'], /Did you mean clean\?/);
test(refuses, [], /Usage/);

test("a mistake is explained by its command's own page", async (t) => {
  for (const [words, page] of [
    [['rum'], 'microvm --help'],
    [['--foo', 'run'], 'microvm --help'],
    [['run'], 'microvm run --help'],
    [['run', '--memroy', '1GiB'], 'microvm run --help'],
    [['run', '--cpus', 'two', '--', 'true'], 'microvm run --help'],
    [['cache', 'cleen'], 'microvm cache --help'],
    [['ring3', 'rum'], 'microvm ring3 --help'],
    [['ring3', 'run', '--memroy'], 'microvm ring3 run --help'],
    [['ring3', 'run', '--timeout', 'x', '--', 'true'], 'microvm ring3 run --help'],
    [['doctor', '--accelerator', 'x'], 'microvm doctor --help'],
  ] as const) {
    t.true((await microvm(words)).stderr.endsWith(`See ${page}\n`), words.join(' '));
  }
  const { stdout } = await microvm(['run', '--json', '--cpus', 'two', '--', 'true']);
  t.like(JSON.parse(stdout), { error: { code: 'ERR_USAGE', hint: 'See microvm run --help' } });
});

test('every wrong option is listed at once', async (t) => {
  const { stderr } = await microvm(['run', '--cpus', '0', '--memory', 'lots', '--accelerator', 'x', '--', 'true']);
  for (const path of ['cpus', 'memory', 'accelerator']) t.true(stderr.includes(path), stderr);
});

test('--json reports a failure as data', async (t) => {
  const { stdout, exitCode } = await microvm(['run', '--json', '--cpus', '0', '--', 'true']);
  t.is(exitCode, 125);
  t.like((JSON.parse(stdout) as { error: object }).error, { code: 'ERR_INVALID_OPTIONS' });
});

test('--help goes to stdout with 0, also behind a command', async (t) => {
  for (const args of [['--help'], ['run', '--help'], ['cache', '-h'], ['cache', 'clean', '--help'], ['help', 'run']]) {
    const { stdout, stderr, exitCode } = await microvm(args);
    t.is(exitCode, 0, args.join(' '));
    t.is(stderr, '');
    t.regex(stdout, /Usage\n {2}microvm /);
  }
});

test('--version is the one of the package', async (t) => {
  t.regex((await microvm(['--version'])).stdout, /^\d+\.\d+\.\d+\n$/);
});
