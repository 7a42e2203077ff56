import test from 'ava';

import { Patience } from '../../src/host/patience.ts';

const after = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A limit, waited for. */
const reach = (patience: Patience, ms: number): Promise<void> =>
  new Promise((resolve) => {
    patience.limit(ms, resolve);
  });

test('a limit is reached in its time, and not once it was met', async (t) => {
  const patience = new Patience();
  const started = performance.now();
  patience.limit(20, () => t.fail('it was met'))();
  await reach(patience, 40);
  t.true(performance.now() - started >= 40);
});

test('limits that are held up are not reached, and go on with what was left', async (t) => {
  const patience = new Patience();
  const reached: string[] = [];
  const before = reach(patience, 50).then(() => reached.push('before'));
  patience.hold();
  patience.hold();
  const during = reach(patience, 50).then(() => reached.push('during'));
  await after(150);
  t.deepEqual(reached, []);
  const released = performance.now();
  patience.release();
  patience.release();
  await Promise.all([before, during]);
  t.true(performance.now() - released >= 40);
});

test('what comes while this process stands still is there before a limit is reached', async (t) => {
  const patience = new Patience();
  const order: string[] = [];
  const limit = reach(patience, 80).then(() => order.push('limit'));
  const came = new Promise<void>((resolve) => setImmediate(resolve)).then(() => order.push('what came'));
  // As after SIGSTOP and SIGCONT: the whole time is over, and the process has read nothing yet.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  await Promise.all([limit, came]);
  t.deepEqual(order, ['what came', 'limit']);
});
