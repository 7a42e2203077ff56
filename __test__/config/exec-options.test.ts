import test from 'ava';

import { MicroVMError } from '../../index.ts';
import { checkExecOptions } from '../../src/config/exec-options.ts';

test('good options of exec pass', (t) => {
  t.notThrows(() =>
    checkExecOptions({
      timeout: 5_000,
      signal: new AbortController().signal,
      reject: false,
      input: Buffer.from('x'),
      encoding: 'buffer',
      cwd: '/tmp',
      env: {},
      shell: true,
    }),
  );
  t.notThrows(() => checkExecOptions({ timeout: undefined }));
});

test('every wrong option of exec is listed at once', (t) => {
  const error = t.throws(
    () => checkExecOptions({ timeout: Number.NaN, signal: 'x', reject: 1, input: 7, encoding: 'latin1', timeuot: 3 }),
    { instanceOf: MicroVMError },
  );
  t.is(error.code, 'ERR_INVALID_OPTIONS');
  t.deepEqual(error.problems?.map(({ path }) => path).toSorted(), [
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
    t.throws(() => checkExecOptions({ timeout }), { code: 'ERR_INVALID_OPTIONS' });
  });
}
