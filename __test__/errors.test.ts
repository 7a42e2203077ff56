import { readFile } from 'node:fs/promises';
import test from 'ava';
import { errnoOf, MicroVMError, withDetails } from '../src/errors.ts';

const read = (path: string): Promise<string> => readFile(new URL(path, import.meta.url), 'utf8');

test('docs/errors.md explains every code, and no other', async (t) => {
  const source = await read('../src/errors.ts');
  const docs = await read('../docs/errors.md');
  const [ofErrors = '', ofOptions = ''] = source.split('export type OptionProblemCode');
  const codesIn = (text: string): (string | undefined)[] =>
    [...text.matchAll(/^ {2}\| '(ERR_\w+)'/gm)].map(([, code]) => code);
  const declared = codesIn(ofErrors);
  const explained = [...docs.matchAll(/^\| `(ERR_\w+)` \| .+ \| .+ \|$/gm)].map(([, code]) => code);
  t.true(declared.length > 30);
  t.deepEqual(explained.toSorted(), declared.toSorted());
  for (const code of codesIn(ofOptions)) t.true(docs.includes(`\`${code}\``), code);
});

test('an error has a code, a message and what is known besides', (t) => {
  const cause = new Error('underneath');
  const problems = [{ code: 'ERR_CPU_COUNT' as const, path: 'cpus', value: '0', allowed: '1 to 64' }];
  const error = new MicroVMError('ERR_INVALID_OPTIONS', 'Wrong', { cause, hint: 'Try 1', problems });
  t.true(error instanceof Error);
  t.like(error, {
    name: 'MicroVMError',
    code: 'ERR_INVALID_OPTIONS',
    message: 'Wrong',
    cause,
    hint: 'Try 1',
    problems,
  });
  t.false('cause' in new MicroVMError('ERR_CACHE', 'Full'));
});

test('more details keep the stack, the cause and what was known', (t) => {
  const first = new MicroVMError('ERR_EXEC_TIMEOUT', 'Late', { cause: 'why', hint: 'Wait' });
  const outcome = {
    command: 'x',
    stdout: 'o',
    stderr: 'e',
    exitCode: undefined,
    signal: 'SIGTERM',
    timedOut: true,
    isCanceled: false,
    durationMs: 5,
  } as const;
  const second = withDetails(first, { consoleTail: 'panic', outcome });
  t.like(second, { code: 'ERR_EXEC_TIMEOUT', cause: 'why', hint: 'Wait', consoleTail: 'panic', ...outcome });
  t.is(second.stack, first.stack);
});

test('the errno of a failed call is told from other codes and other values', (t) => {
  t.is(errnoOf(Object.assign(new Error('x'), { code: 'ENOENT' })), 'ENOENT');
  t.is(errnoOf(Object.assign(new Error('x'), { code: 5 })), undefined);
  t.is(errnoOf(new Error('x')), undefined);
  t.is(errnoOf('ENOENT'), undefined);
});
