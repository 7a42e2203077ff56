import test from 'ava';

import { describeExit, isOrderly } from '../../src/vm/describe-exit.ts';

const PANIC = `[    3.1] sysrq: Trigger a crash
[    3.211234] Kernel panic - not syncing: sysrq triggered crash
[    3.22] CPU: 0 PID: 99 Comm: sh Not tainted`;

test('a reset behind a panic on the console is a panic, with its words', (t) => {
  t.deepEqual(describeExit({ reason: 'reset' }, PANIC), {
    reason: 'panic',
    detail: 'sysrq triggered crash',
    consoleTail: PANIC,
  });
  t.is(describeExit({ reason: 'reset' }, 'Kernel panic - not syncing: VFS: no root').detail, 'VFS: no root');
});

test('a reset without one, and other ends, keep their reason and have the console', (t) => {
  for (const tail of ['', 'Rebooting.', 'echo Kernel panic - not syncing: made up']) {
    t.deepEqual(describeExit({ reason: 'reset' }, tail), { reason: 'reset', consoleTail: tail });
  }
  t.deepEqual(describeExit({ reason: 'failed', detail: 'why' }, PANIC), {
    reason: 'failed',
    detail: 'why',
    consoleTail: PANIC,
  });
});

test('an end as it should be is left as it is', (t) => {
  for (const reason of ['power-off', 'stopped'] as const) {
    t.true(isOrderly({ reason }));
    t.deepEqual(describeExit({ reason }, PANIC), { reason });
  }
  t.false(isOrderly({ reason: 'reset' }));
});
