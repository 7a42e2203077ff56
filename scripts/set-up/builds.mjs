// Our own code: the addon and the guest agent (cargo), and the TypeScript.

import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { capture, isInstalled, run } from './commands.mjs';
import { PROJECT, exists, fingerprint, stamp } from './folders.mjs';
import { SetUpError, done, nothingToDo, say } from './report.mjs';

/** The minor version that Cargo.toml's rust-version names. */
const OLDEST_RUST = 88;

/** rustup puts cargo where only new shells look. */
export function findCargo() {
  const folder = join(homedir(), '.cargo/bin');
  if (!isInstalled('cargo') && exists(join(folder, 'cargo'))) {
    process.env.PATH = `${folder}${delimiter}${process.env.PATH}`;
  }
  const [, major, minor] = /^rustc (\d+)\.(\d+)/.exec(capture('rustc', ['--version']).stdout) ?? [];
  if (isInstalled('cargo') && (Number(major) > 1 || Number(minor) >= OLDEST_RUST)) return;
  const found = minor === undefined ? 'not installed' : `${major}.${minor}`;
  throw new SetUpError(`Rust 1.${OLDEST_RUST} or newer is needed; it is ${found}`, {
    hint: 'Install stable Rust as https://rustup.rs tells, then run the command again.',
  });
}

/** The formatter and the linter, which a minimal Rust lacks. */
export async function installRustComponents() {
  const missing = ['clippy', 'fmt'].filter((name) => capture('cargo', [name, '--version']).status !== 0);
  if (missing.length === 0) return nothingToDo('clippy and rustfmt are there');
  const names = missing.map((name) => (name === 'fmt' ? 'rustfmt' : name));
  say(`Adding ${names.join(' and ')} to Rust`);
  await run('rustup', ['component', 'add', ...names], { what: 'Adding components to Rust' });
  return done(names.join(', '));
}

/**
 * @param {{what: string, command: string[], sources: string[], outputs: string[]}} build
 */
async function buildWhenEdited({ what, command, sources, outputs }) {
  const print = fingerprint(sources);
  const made = stamp(join(PROJECT, 'node_modules/.cache/microvm', `${what.replaceAll(' ', '-')}.stamp`));
  if (made.matches(print) && outputs.every((output) => exists(join(PROJECT, output)))) return nothingToDo('up to date');
  const [file, ...args] = command;
  say(`Building ${what}; the first time takes minutes`);
  await run(file, args, { what: `Building ${what}`, cwd: PROJECT });
  made.write(print);
  return done();
}

/** The addon and the guest agent, into native/. */
export async function buildNative() {
  findCargo();
  return buildWhenEdited({
    what: 'the native parts',
    command: ['bash', 'scripts/build-native.sh'],
    sources: ['crates', 'Cargo.toml', 'Cargo.lock', 'scripts/build-native.sh', '.cargo'],
    outputs: [
      'native/microvm.linux-x64-gnu.node',
      'native/microvm-agent',
      'native/microvm-virtiofsd',
      'native/binding.d.ts',
    ],
  });
}

/** The TypeScript, into dist/. */
export async function buildTypeScript() {
  return buildWhenEdited({
    what: 'the TypeScript',
    command: ['node_modules/.bin/tsc', '-p', 'tsconfig.build.json'],
    sources: ['index.ts', 'src', 'native/binding.d.ts', 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json'],
    outputs: ['dist/index.js'],
  });
}
