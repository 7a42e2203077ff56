import { tmpdir } from 'node:os';
import test from 'ava';

import { mountOptions, rootfsOption } from '../../src/cli/mount-arguments.ts';

test('a mount is a source, a target and options', (t) => {
  const rest = 'z:/z:posix-acl,request-queues=4';
  t.deepEqual(
    mountOptions(['.:/work', '/a:b:/c:ro,cache=never', 'x:/y:threads=4,xattr,writeback,sandbox=none', rest]),
    {
      '/work': { source: '.' },
      '/c': { source: '/a:b', readonly: true, cache: 'never' },
      '/y': { source: 'x', threads: 4, xattr: true, writeback: true, sandbox: 'none' },
      '/z': { source: 'z', posixAcl: true, requestQueues: 4 },
    },
  );
});

for (const [text, message] of [
  ['work', /takes SRC:DST/],
  [':/work', /takes SRC:DST/],
  ['.:work', /takes SRC:DST/],
  ['.:/work:roo', /no option 'roo'/],
  ['.:/work:cache', /no option 'cache'/],
  ['.:/work:ro=1', /no option 'ro=1'/],
  ['.:/work:', /takes SRC:DST/],
  ['.:/work:ro,', /no option ''/],
  ['.:/work:ro,rw', /twice what readonly is/],
  ['.:/work:cache=auto,cache=never', /twice what cache is/],
] as const) {
  test(`--mount ${text} is refused`, (t) => {
    t.throws(() => mountOptions([text]), { name: 'UsageError', message });
  });
}

test('values are taken whole, and are numbers only where they are digits', (t) => {
  t.deepEqual(mountOptions(['a\nb:/x:cache=auto=x']), { '/x': { source: 'a\nb', cache: 'auto=x' } } as never);
  for (const threads of ['', ' ', '0x10', '1e1', '-1', '1.5']) {
    t.deepEqual(mountOptions([`.:/x:threads=${threads}`]), { '/x': { source: '.', threads } } as never);
  }
});

test('two mounts at one place are refused', (t) => {
  t.throws(() => mountOptions(['a:/x', 'b:/x']), { message: /\/x twice/ });
});

test('--rootfs is a name, a folder to run from, or an archive', (t) => {
  t.deepEqual([undefined, 'host', 'none', tmpdir(), '/no/such/folder', '/dev/null', '/dev/null/x'].map(rootfsOption), [
    undefined,
    'host',
    'none',
    { dir: tmpdir() },
    '/no/such/folder',
    '/dev/null',
    '/dev/null/x',
  ]);
});
