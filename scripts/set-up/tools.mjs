// Rust programs that the tests and checks use, built once a version into the cache.

import { join } from 'node:path';
import { findCargo } from './builds.mjs';
import { run } from './commands.mjs';
import { CACHE, exists } from './folders.mjs';
import { done, nothingToDo, say } from './report.mjs';

/**
 * @typedef {object} Tool
 * @property {string} name
 * @property {string} version
 * @property {number} minutes
 * @property {string[]} [flags]
 * @property {boolean} [isStatic] whether it runs without this machine's libraries, in a guest
 */

/** The foreign vhost-user back end that the front end is tested with. @type {Tool} */
export const VIRTIOFSD = { name: 'virtiofsd', version: '1.14.0', minutes: 2 };

/** What POSIX says of files, asked of a file system. @type {Tool} */
export const PJDFSTEST = { name: 'pjdfstest', version: '0.2.2', minutes: 2, isStatic: true };

/** Licences and duplicates of the crates. Built to be built quickly, as it runs for a second. @type {Tool} */
export const CARGO_DENY = { name: 'cargo-deny', version: '0.20.2', minutes: 4, flags: ['--debug'] };

/** Where a tool of this version is. @param {Tool} tool */
export function toolPath({ name, version }) {
  return join(CACHE, 'tools', `${name}-${version}`, 'bin', name);
}

/** @param {Tool} tool */
export async function installTool(tool) {
  const path = toolPath(tool);
  if (exists(path)) return nothingToDo(tool.version);
  findCargo();
  say(`Builds ${tool.name} ${tool.version} into the cache: about ${tool.minutes} minutes on two cores, once`);
  const root = join(CACHE, 'tools', `${tool.name}-${tool.version}`);
  // A target folder of its own, as the default one is a temporary folder that a stopped build would lose.
  const target = join(CACHE, 'tools', 'build', `${tool.name}-${tool.version}`);
  // With a target that is named the flags stay away from build scripts.
  const flags = [...(tool.flags ?? []), ...(tool.isStatic ? ['--target', 'x86_64-unknown-linux-gnu'] : [])];
  const rustFlags = `${process.env.RUSTFLAGS ?? ''} -C target-feature=+crt-static`;
  await run('cargo', ['install', '--locked', '--root', root, '--version', tool.version, ...flags, tool.name], {
    what: `Building ${tool.name}`,
    env: {
      ...process.env,
      CARGO_TARGET_DIR: target,
      // Nobody debugs them.
      CARGO_PROFILE_DEV_DEBUG: '0',
      ...(tool.isStatic && { RUSTFLAGS: rustFlags }),
    },
  });
  await run('rm', ['-rf', target], { what: `Cleaning up after ${tool.name}` });
  return done(path);
}
