import test from 'ava';

import { guestFiles } from '../../src/guest/files.ts';

test.beforeEach(() => {
  process.env['MICROVM_CACHE'] = '/cache';
  delete process.env['MICROVM_KERNEL'];
});

test.serial('without options they are what the set-up put into the cache', (t) => {
  t.deepEqual(guestFiles({ kernel: undefined, rootfs: { kind: 'default' } }), [
    '/cache/guest/current/vmlinuz',
    '/cache/guest/userland-current',
  ]);
});

test.serial('what was given takes their place', (t) => {
  process.env['MICROVM_KERNEL'] = '/k';
  t.deepEqual(guestFiles({ kernel: undefined, rootfs: { kind: 'none' } }), ['/k']);
  const kernel = { image: '/i', modules: '/m' };
  t.deepEqual(guestFiles({ kernel, rootfs: { kind: 'path', path: '/r' } }), ['/i', '/m', '/r']);
});
