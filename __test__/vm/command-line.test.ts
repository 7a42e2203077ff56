import { execFile } from 'node:child_process';
import { chmod, mkdir, realpath, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import fc from 'fast-check';
import { commandLine, type CommandLineRequest, quote, requestProblems } from '../../src/vm/command-line.ts';
import { BUSYBOX } from '../helpers/ring3.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

const SHELLS: readonly { readonly name: string; readonly shell: readonly string[] }[] = [
  { name: '/bin/sh', shell: ['/bin/sh'] },
  { name: '/bin/bash --posix', shell: ['/bin/bash', '--posix'] },
  { name: 'busybox sh', shell: [BUSYBOX, 'sh'] },
];
const PRINT_NUL_TERMINATED = 'for (const text of process.argv.slice(1)) process.stdout.write(`${text}\\0`)';

interface Result {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
}

async function runIn(shell: readonly string[], line: string, cwd = '/'): Promise<Result> {
  const [file = '/bin/sh', ...args] = shell;
  const env = { PATH: process.env['PATH'] ?? '', HOME: '/root' };
  return promisify(execFile)(file, [...args, '-c', line], { env, cwd }).then(
    ({ stdout, stderr }) => ({ stdout, stderr, exitCode: 0 }),
    (error: Result & { code: number }) => ({ stdout: error.stdout, stderr: error.stderr, exitCode: error.code }),
  );
}

const run = (request: CommandLineRequest, cwd?: string): Promise<Result> =>
  runIn(['/bin/sh'], commandLine(request).line, cwd);

/** Any text without NUL, rich in what shells take for special. */
const text = fc.oneof(
  fc.string({ unit: 'grapheme' }).map((value) => value.replaceAll('\0', '')),
  fc.string({ unit: fc.constantFrom(...`'"\\$\`!#&|;<>()[]{}*?~=%-+ \t\n\r\u00e9a`) }),
);

for (const { name: shellName, shell } of SHELLS) {
  test(`${shellName} hands over every argument as it is`, async (t) => {
    await fc.assert(
      fc.asyncProperty(fc.array(text, { maxLength: 8 }), async (args) => {
        const { line } = commandLine({ file: '/usr/bin/printf', args: ['%s\\0', '', ...args] });
        const { stdout } = await runIn(shell, line);
        t.deepEqual(stdout.split('\0').slice(0, -1), ['', ...args]);
      }),
      { numRuns: 60 },
    );
  });

  test(`${shellName} sets every variable as it is`, async (t) => {
    const name = fc.oneof(
      fc.stringMatching(/^[A-Za-z_][A-Za-z0-9_]{0,8}$/),
      fc.constantFrom('IFS', 'OPTIND', 'UID', 'PPID', 'PS1', 'BASH_ENV', 'LINENO', 'RANDOM'),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(
          name.filter((value) => !/^(?:PATH|LD_\w*|_|PWD|SHLVL)$/.test(value)),
          text,
        ),
        async (env) => {
          const { line } = commandLine({ file: '/usr/bin/env', args: ['-0'], env });
          const { stdout } = await runIn(shell, line);
          const found = new Map(
            stdout.split('\0').map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]),
          );
          for (const [key, value] of Object.entries(env)) t.is(found.get(key), value, key);
        },
      ),
      { numRuns: 60 },
    );
  });
}

test('a quoted word is as short as it can be', (t) => {
  t.is(quote('/usr/bin/env'), '/usr/bin/env');
  t.is(quote(''), "''");
  t.is(quote("it's"), `'it'\\''s'`);
});

test('a command without cwd and env is one word after another', (t) => {
  t.is(commandLine({ file: 'uname', args: ['-a'] }).line, 'exec uname -a');
});

test('with shell, pipes and variables of the line work, and env and cwd hold for all of it', async (t) => {
  const request = { file: 'echo "$A" | tr a-z A-Z; pwd', shell: true, env: { A: "it's" }, cwd: '/usr' };
  t.is((await run(request)).stdout, "IT'S\n/usr\n");
  t.is((await run({ ...request, env: { A: 'x', IFS: ',' } })).stdout, 'X\n/usr\n');
  t.is((await run({ file: 'echo $0 $((1+1))', args: ['$0'], shell: '/bin/bash' })).stdout, '/bin/bash 2 $0\n');
});

test('undefined variables are left out', async (t) => {
  t.is((await run({ file: 'echo ${A-unset}', shell: true, env: { A: undefined } })).stdout, 'unset\n');
});

test('a relative cwd is no option and is not searched for in CDPATH', async (t) => {
  const folder = await realpath(await temporaryFolder(t));
  await mkdir(join(folder, '-'));
  const { stdout } = await run({ file: 'pwd', cwd: '-', env: { CDPATH: '/usr' } }, folder);
  t.is(stdout, `${folder}/-\n`);
});

test('a missing cwd is told from a command that fails with the same code', async (t) => {
  const missing = commandLine({ file: 'true', cwd: '/no/such' });
  const failed = await runIn(['/bin/sh'], missing.line);
  t.is(failed.exitCode, 125);
  t.regex(missing.cwdFailure(failed) ?? '', /cd.*\/no\/such\n$/);

  const present = commandLine({ file: 'echo oops >&2; exit 125', shell: true, cwd: '/' });
  t.is(present.cwdFailure(await runIn(['/bin/sh'], present.line)), undefined);
});

test('exit codes for a missing and for a forbidden program are those of a shell', async (t) => {
  const file = join(await temporaryFolder(t), 'plain');
  await writeFile(file, '');
  await chmod(file, 0o644);
  t.is((await run({ file: 'no-such-program' })).exitCode, 127);
  t.is((await run({ file })).exitCode, 126);
});

test('the program takes the place of the shell', async (t) => {
  const { stdout } = await run({ file: process.execPath, args: ['-e', PRINT_NUL_TERMINATED, 'a b', "'"] });
  t.is(stdout, "a b\0'\0");
});

test('everything that cannot be handed over is listed at once', (t) => {
  const problems = requestProblems({
    file: '-rf',
    args: ['a\0b', '\ud800', 5 as never],
    cwd: '',
    env: { 'A B': 'x', C: 'secret\0', D: 7 as never },
  });
  t.deepEqual(
    problems.map(({ path }) => path),
    ['file', 'args[0]', 'args[1]', 'args[2]', 'cwd', 'env["A B"]', 'env.C', 'env.D'],
  );
  t.false(JSON.stringify(problems).includes('secret'));
});

test('a shell that is no path and arguments that are no list are refused', (t) => {
  const paths = (request: CommandLineRequest): string[] => requestProblems(request).map(({ path }) => path);
  t.deepEqual(paths({ file: 'x', shell: 'bash' }), ['shell']);
  t.deepEqual(paths({ file: 'x', args: 'y' as never }), ['args']);
  t.deepEqual(paths({ file: 'x', env: null as never }), ['env']);
  t.deepEqual(paths({ file: '' }), ['file']);
  t.deepEqual(paths({ file: 5 as never, shell: true }), ['file']);
});
