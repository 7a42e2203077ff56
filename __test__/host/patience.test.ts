import test from 'ava';

import { Patience } from '../../src/host/patience.ts';

const after = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test('a limit is reached in its time, and not once it was met', async (t) => {
  const patience = new Patience();
  const reached: string[] = [];
  patience.limit(20, () => reached.push('first'));
  patience.limit(20, () => reached.push('met'))();
  await after(60);
  t.deepEqual(reached, ['first']);
});

test('limits that are held up are not reached, and go on with what was left', async (t) => {
  const patience = new Patience();
  const reached: string[] = [];
  patience.limit(50, () => reached.push('before'));
  patience.hold();
  patience.hold();
  patience.limit(50, () => reached.push('during'));
  await after(150);
  t.deepEqual(reached, []);
  const released = performance.now();
  await new Promise<void>((resolve) => {
    patience.limit(40, resolve);
    patience.release();
    patience.release();
  });
  await after(60);
  t.deepEqual(reached.toSorted(), ['before', 'during']);
  t.true(performance.now() - released >= 80);
});
