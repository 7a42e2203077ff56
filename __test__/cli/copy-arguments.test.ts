import test from 'ava';

import { UsageError } from '../../src/cli/arguments.ts';
import { copyOf, placeOf } from '../../src/cli/copy-arguments.ts';

test('a name with a colon is in a machine, all else is here, and - is a stream', (t) => {
  t.deepEqual(placeOf('box:/work'), { kind: 'guest', machine: 'box', path: '/work' });
  t.deepEqual(placeOf('0123456789ab:a:b'), { kind: 'guest', machine: '0123456789ab', path: 'a:b' });
  for (const path of ['src', './a:b', '/a:b', '../x', 'a/b:c', ':x', '.:x']) {
    t.deepEqual(placeOf(path), { kind: 'host', path });
  }
  t.deepEqual(placeOf('-'), { kind: 'stream' });
});

test('a copy has one side in a machine', (t) => {
  const guest = { kind: 'guest', machine: 'box', path: '/x' } as const;
  t.deepEqual(copyOf(['a', 'box:/x']), { to: 'guest', source: { kind: 'host', path: 'a' }, guest });
  t.deepEqual(copyOf(['box:/x', '-']), { to: 'host', target: { kind: 'stream' }, guest });
  for (const words of [
    [],
    ['a'],
    ['a', 'b'],
    ['-', '-'],
    ['box:/x', 'box:/y'],
    ['box:', 'a'],
    ['a', ''],
    ['a', 'box:/x', 'more'],
  ]) {
    t.throws(() => copyOf(words), { instanceOf: UsageError }, words.join(' '));
  }
});
