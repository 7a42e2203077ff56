import test from 'ava';

import { nearest } from '../../src/config/suggest.ts';

const names = ['memory', 'cpus', 'kernel', 'accelerator'];

const suggests = test.macro({
  exec: (t, word: string, expected: string | undefined) => t.is(nearest(word, names), expected),
  title: (_, word, expected) => `'${word}' is taken for ${expected ?? 'nothing that we know'}`,
});

test(suggests, 'memroy', 'memory');
test(suggests, 'Memory', 'memory');
test(suggests, 'cpu', 'cpus');
test(suggests, 'kernle', 'kernel');
test(suggests, 'acelerater', 'accelerator');
test(suggests, 'disk', undefined);
test(suggests, '', undefined);
