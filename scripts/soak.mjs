// npm run soak: what takes too long for npm test. `npm run soak -- busy lab` runs the named parts only.

import { fail, setUp } from './set-up.mjs';
import { SetUpError } from './set-up/report.mjs';
import { KVM_TESTS, runAva, runFileSystemTests, runKvmTests } from './test/suites.mjs';

const PARTS = {
  busy: () => {
    process.env.MICROVM_BUSY_BOOTS ??= '50';
    return runAva(['__test__/e2e/busy-boots.test.ts']);
  },
  // Tests take their numbers of rounds, and their amounts, from MICROVM_SOAK: 1 GiB of output and 1,000 commands take
  // minutes, in the lab most of an hour.
  exec: () => runAva(['__test__/e2e/process.test.ts'], { MICROVM_SOAK: '1' }),
  // CI runs the next two as well.
  more: () => runKvmTests({ seconds: 1200, folders: [KVM_TESTS.more] }),
  fs: async () => {
    await setUp({ only: ['bench-kernel', 'pjdfstest'] });
    return runFileSystemTests();
  },
  lab: async () => {
    await setUp({ only: ['bench-kernel', 'pjdfstest'] });
    return runKvmTests({ seconds: 4 * 3600, folders: Object.values(KVM_TESTS), env: { MICROVM_SOAK: '1' } });
  },
};

try {
  const asked = process.argv.slice(2);
  const unknown = asked.find((name) => !(name in PARTS));
  if (unknown)
    throw new SetUpError(`There is no part "${unknown}"`, { hint: `Parts: ${Object.keys(PARTS).join(', ')}` });
  await setUp({ test: true });
  let passed = 0;
  let failed = 0;
  for (const [name, run] of Object.entries(PARTS)) {
    // What CI runs by name is a part of the lab's.
    if (asked.length > 0 ? !asked.includes(name) : name === 'more') continue;
    console.log(`\nSoak: ${name}`);
    const outcome = await run();
    passed += outcome.passed;
    failed += outcome.failed;
  }
  console.log(`\n${passed} passed, ${failed} failed`);
  process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
} catch (error) {
  fail(error);
}
