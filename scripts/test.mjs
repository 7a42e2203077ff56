// npm test: the set-up, then every suite. The last line is `N passed, N failed`; the exit status is 1 if any failed.
// `npm test -- cargo ava` runs the named suites only.

import { fail, setUp } from './set-up.mjs';
import { SetUpError, formatTime } from './set-up/report.mjs';
import { runAva, runCargoTests, runKvmTests, runRustOnKvm } from './test/suites.mjs';

const SUITES = {
  cargo: { title: 'Rust tests', run: runCargoTests },
  ava: { title: 'TypeScript tests', run: () => runAva() },
  'lab-rust': { title: 'Rust tests on KVM', run: () => runRustOnKvm({ seconds: 600 }) },
  lab: { title: 'End-to-end tests on KVM', run: () => runKvmTests({ seconds: 1200 }) },
};

try {
  const asked = process.argv.slice(2);
  const unknown = asked.find((name) => !(name in SUITES));
  if (unknown)
    throw new SetUpError(`There is no suite "${unknown}"`, { hint: `Suites: ${Object.keys(SUITES).join(', ')}` });
  await setUp({ test: true });

  let passed = 0;
  let failed = 0;
  const lines = [];
  for (const [name, { title, run }] of Object.entries(SUITES)) {
    if (asked.length > 0 && !asked.includes(name)) continue;
    console.log(`\n${title}`);
    const started = performance.now();
    const outcome = await run();
    passed += outcome.passed;
    failed += outcome.failed;
    const skipped = outcome.skipped > 0 ? `, ${outcome.skipped} skipped` : '';
    lines.push(
      `  ${title}: ${outcome.passed} passed, ${outcome.failed} failed${skipped} (${formatTime(performance.now() - started)})`,
    );
  }
  console.log(`\n${lines.join('\n')}\n\n${passed} passed, ${failed} failed`);
  process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
} catch (error) {
  fail(error);
}
