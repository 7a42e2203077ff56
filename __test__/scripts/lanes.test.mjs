import test from 'ava';

import { inLanes } from '../../scripts/test/lanes.mjs';

test('no more than so many run at a time, and the results keep the order of the items', async (t) => {
  let running = 0;
  let most = 0;
  /** @type {(() => void)[]} */
  const finish = [];
  const all = inLanes([1, 2, 3, 4, 5], 2, async (item) => {
    running += 1;
    most = Math.max(most, running);
    // The later one of two ends first.
    await new Promise((resolve) => {
      finish.push(() => resolve(undefined));
      if (finish.length === 2 || item === 5) for (const end of finish.splice(0).reverse()) end();
    });
    running -= 1;
    return item * 10;
  });
  t.deepEqual(await all, [10, 20, 30, 40, 50]);
  t.is(most, 2);
});

test('a failure is told when what runs has ended', async (t) => {
  let others = 0;
  const all = inLanes([0, 1, 2], 2, async (item) => {
    if (item === 0) throw new Error('broken');
    others += 1;
  });
  await t.throwsAsync(all, { message: 'broken' });
  t.is(others, 2);
});
