import test from 'ava';

import { execOptionProblems } from '../../src/config/exec-options.ts';

test('good options of exec pass', (t) => {
  t.deepEqual(
    execOptionProblems({
      timeout: 5_000,
      signal: new AbortController().signal,
      reject: false,
      input: Buffer.from('x'),
      encoding: 'buffer',
      stripFinalNewline: true,
      cwd: '/tmp',
      env: {},
      shell: true,
    }),
    [],
  );
  t.deepEqual(execOptionProblems({ timeout: undefined }), []);
  for (const encoding of ['utf8', 'utf-8', 'buffer']) t.deepEqual(execOptionProblems({ encoding }), []);
});

test('every wrong option of exec is listed at once', (t) => {
  const problems = execOptionProblems({
    timeout: Number.NaN,
    signal: 'x',
    reject: 1,
    input: 7,
    encoding: 'latin1',
    timeuot: 3,
  });
  t.deepEqual(problems.map(({ path }) => path).toSorted(), [
    'encoding',
    'input',
    'reject',
    'signal',
    'timeout',
    'timeuot',
  ]);
});

for (const timeout of [0, -1, 0.5, 2 ** 31]) {
  test(`a timeout of ${timeout} ms is refused`, (t) => {
    t.deepEqual(
      execOptionProblems({ timeout }).map(({ path }) => path),
      ['timeout'],
    );
  });
}
