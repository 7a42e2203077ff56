import { getEventListeners } from 'node:events';
import test from 'ava';

import { BootLimit } from '../../src/vm/boot-limit.ts';

const untilAborted = (signal: AbortSignal): Promise<never> =>
  new Promise((_resolve, reject) =>
    signal.addEventListener('abort', () => reject(new Error('killed')), { once: true }),
  );

test('work that takes too long is told to end, and the error says how long it had', async (t) => {
  const limit = new BootLimit(20);
  limit.start();
  await t.throwsAsync(limit.within(untilAborted), { code: 'ERR_BOOT_TIMEOUT', message: /20 ms/ });
  t.is(limit.remainingMs, 1);
});

test('work that fails in time keeps its own error', async (t) => {
  const limit = new BootLimit(60_000);
  limit.start();
  await t.throwsAsync(
    limit.within(() => Promise.reject(new Error('no QEMU'))),
    { message: 'no QEMU' },
  );
  t.true(limit.remainingMs > 1 && limit.remainingMs <= 60_000);
});

test("the caller's signal ends the work too, and nothing stays on it", async (t) => {
  const limit = new BootLimit(60_000);
  limit.start();
  const abort = new AbortController();
  const ended = t.throwsAsync(limit.within(untilAborted, abort.signal), { message: 'killed' });
  abort.abort();
  await ended;
  const { signal } = new AbortController();
  t.is(await limit.within(() => Promise.resolve('up'), signal), 'up');
  t.deepEqual(getEventListeners(signal, 'abort'), []);
});

test('the error of a guest that never answered tells where to look, by whether it printed anything', (t) => {
  const limit = new BootLimit(1_000);
  const why = new Error('nobody connected');
  const printed = limit.exceeded(why, 'Kernel panic');
  t.is(printed.consoleTail, 'Kernel panic');
  t.regex(printed.hint ?? '', /See consoleTail/);
  t.regex(limit.exceeded(why, '').hint ?? '', /cmdline: 'earlyprintk=ttyS0 ignore_loglevel'/);
  t.is(limit.exceeded(why, '').cause, why);
});
