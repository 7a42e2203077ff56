import test from 'ava';
import { countCargoTests } from '../../scripts/test/cargo-results.mjs';
import { tapReader } from '../../scripts/test/tap.mjs';

/** @param {string[]} chunks */
function read(chunks) {
  const shown = [];
  const reader = tapReader((line) => shown.push(line));
  for (const chunk of chunks) reader.write(chunk);
  reader.end();
  return { ...reader.counts, shown };
}

test('a TAP report is counted, however its lines are cut', (t) => {
  const { passed, failed, skipped, complete } = read([
    'TAP version 13\nok 1 - a\nnot o',
    'k 2 - b\n  ---\n    name: Error\n  ...\nok 3 - c # SKIP\n',
    '\n1..3\n# tests 2',
  ]);
  t.deepEqual({ passed, failed, skipped, complete }, { passed: 1, failed: 1, skipped: 1, complete: true });
});

test('a TAP report without its plan is not complete', (t) => {
  t.false(read(['TAP version 13\nok 1 - a\n']).complete);
});

test('what explains a failure is shown, the frame of the report is not', (t) => {
  const { shown } = read(['TAP version 13\nnot ok 1 - a\n  ---\n    message: broken\n  ...\n1..1\n# fail 1\n']);
  t.true(shown.includes('  ✗ a'));
  t.true(shown.includes('    message: broken'));
  t.false(shown.some((line) => line.startsWith('TAP') || line.startsWith('1..') || line.startsWith('# ')));
});

test('the sums of all cargo test binaries are added up', (t) => {
  const output = [
    'running 2 tests',
    'test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s',
    'test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s',
  ].join('\n');
  t.deepEqual(countCargoTests(output), { passed: 5, failed: 1, skipped: 1 });
});
