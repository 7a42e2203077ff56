// Our own code: the addon and the guest agent (cargo), and the TypeScript.

import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { isInstalled, run } from './commands.mjs';
import { PROJECT, exists, fingerprint, stamp } from './folders.mjs';
import { SetUpError, done, nothingToDo } from './report.mjs';

/** rustup puts cargo where only new shells look. */
export function findCargo() {
  if (isInstalled('cargo')) return;
  const folder = join(homedir(), '.cargo/bin');
  if (exists(join(folder, 'cargo'))) {
    process.env.PATH = `${folder}${delimiter}${process.env.PATH}`;
    return;
  }
  throw new SetUpError('cargo is not installed', {
    hint: 'Install stable Rust as https://rustup.rs tells, then run the command again.',
  });
}

/**
 * @param {{what: string, command: string[], sources: string[], outputs: string[]}} build
 */
async function buildWhenEdited({ what, command, sources, outputs }) {
  const print = fingerprint(sources);
  const made = stamp(join(PROJECT, 'node_modules/.cache/microvm', `${what.replaceAll(' ', '-')}.stamp`));
  if (made.matches(print) && outputs.every((output) => exists(join(PROJECT, output)))) return nothingToDo('up to date');
  const [file, ...args] = command;
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
    outputs: ['native/microvm.linux-x64-gnu.node', 'native/microvm-agent', 'native/binding.d.ts'],
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
