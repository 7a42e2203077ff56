import test from 'ava';

import { contentOf } from '../../src/vm/output-content.ts';

for (const [written, stripped] of [
  ['', ''],
  ['\n', ''],
  ['\r\n', ''],
  ['a\n', 'a'],
  ['a\r\n', 'a'],
  ['a\n\n', 'a\n'],
  ['a\r', 'a\r'],
  ['\na', '\na'],
] as const) {
  test(`${JSON.stringify(written)} is ${JSON.stringify(stripped)} without its final newline`, (t) => {
    const bytes = Buffer.from(written);
    t.is(contentOf(bytes, {}), written);
    t.is(contentOf(bytes, { stripFinalNewline: true }), stripped);
    t.deepEqual(contentOf(bytes, { encoding: 'buffer', stripFinalNewline: true }), Buffer.from(stripped));
    t.deepEqual(contentOf(bytes, { encoding: 'buffer' }), bytes);
  });
}
