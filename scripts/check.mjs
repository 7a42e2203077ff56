// npm run check: all that is not a test. It goes on after a failure, so that one run shows everything.
// npm run fix (--fix): what can be mended without a person.

import { delimiter, join } from 'node:path';
import { capture } from './set-up/commands.mjs';
import { PROJECT } from './set-up/folders.mjs';
import { formatTime } from './set-up/report.mjs';
import { CARGO_DENY, toolPath } from './set-up/tools.mjs';
import { fail, setUp } from './set-up.mjs';

const CLIPPY = ['cargo', 'clippy', '--workspace', '--all-targets', '--locked', '--quiet'];

/** @type {{name: string, command: string[], env?: NodeJS.ProcessEnv}[]} */
const CHECKS = [
  { name: 'TypeScript format', command: ['oxfmt', '--check'] },
  { name: 'Rust format', command: ['cargo', 'fmt', '--all', '--check'] },
  { name: 'TypeScript lint', command: ['oxlint', '--deny-warnings'] },
  { name: 'Types', command: ['tsc', '-p', 'tsconfig.json'] },
  { name: 'Types of scripts', command: ['tsc', '-p', 'scripts/tsconfig.json'] },
  { name: 'Import borders', command: ['depcruise', '--config', '.dependency-cruiser.cjs', 'index.ts', 'src'] },
  { name: 'Unused code', command: ['knip'] },
  { name: 'npm licences', command: ['node', 'scripts/check/npm-licences.mjs'] },
  { name: 'Shell scripts', command: ['bash', '-n', 'scripts/build-native.sh', 'lab/run', 'lab/as-user', '.ci/run'] },
  { name: 'Package', command: ['node', 'scripts/check/package.mjs'] },
  { name: 'Rust lint', command: [...CLIPPY, '--', '-D', 'warnings'] },
  {
    name: 'Rust documentation',
    command: ['cargo', 'doc', '--workspace', '--no-deps', '--locked', '--quiet'],
    env: { RUSTDOCFLAGS: '-D warnings' },
  },
  {
    name: 'Fuzz targets',
    command: ['cargo', 'build', '--locked', '--quiet', '--manifest-path', 'fuzz/Cargo.toml'],
    env: { CARGO_TARGET_DIR: join(PROJECT, 'target/fuzz') },
  },
  // Advisories take a database from the network: CI's weekly job and releases check them.
  {
    name: 'Crates: licences, bans, sources',
    command: [toolPath(CARGO_DENY), 'check', 'bans', 'licenses', 'sources'],
  },
];

const FIXES = [
  { name: 'TypeScript lint', command: ['oxlint', '--fix'] },
  { name: 'TypeScript format', command: ['oxfmt'] },
  { name: 'Rust lint', command: [...CLIPPY, '--fix', '--allow-dirty', '--allow-staged'] },
  { name: 'Rust format', command: ['cargo', 'fmt', '--all'] },
];

try {
  const fix = process.argv.includes('--fix');
  await setUp({ check: !fix });
  console.log(fix ? '\nFixes' : '\nChecks');
  const PATH = `${join(PROJECT, 'node_modules/.bin')}${delimiter}${process.env.PATH}`;
  let failed = 0;
  for (const { name, command, env } of fix ? FIXES : CHECKS) {
    const [file, ...args] = command;
    const started = performance.now();
    const { status, stdout, stderr } = capture(file, args, { cwd: PROJECT, env: { ...process.env, PATH, ...env } });
    console.log(`  ${status === 0 ? '✓' : '✗'} ${name} (${formatTime(performance.now() - started)})`);
    if (status === 0) continue;
    failed += 1;
    console.log(`${stdout}${stderr}`.trimEnd().replaceAll(/^/gm, '    '));
  }
  console.log(failed === 0 ? '\nAll is well' : `\n${failed} failed${fix ? '' : ' (npm run fix mends what it can)'}`);
  process.exitCode = failed === 0 ? 0 : 1;
} catch (error) {
  fail(error);
}
