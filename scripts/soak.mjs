// npm run soak: what takes too long for npm test. `npm run soak -- busy lab` runs the named parts only.

import { fail, setUp } from './set-up.mjs';
import { SetUpError } from './set-up/report.mjs';
import { KVM_TESTS, runAva, runCargoTests, runFileSystemTests, runKvmTests, runRustOnKvm } from './test/suites.mjs';

const RING3 = ['ring3', 'ring3-linux'];

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
  // Thousands of sandboxes, of hostile programs and of changes of what is mapped.
  ring3: () => runCargoTests(RING3),
  // The lab's processor has nested paging, under which no stale page table shows: here KVM shadows them.
  shadow: () => runRustOnKvm({ seconds: 3600, crates: RING3, env: { LAB: 'nested', LAB_KVM_AMD: 'npt=0' } }),
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
