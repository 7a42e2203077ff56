// Runs other programs: quietly for a look, visibly for work.

import { spawn, spawnSync } from 'node:child_process';
import { SetUpError, noSpace } from './report.mjs';

/**
 * Runs a program and gives its output; a program that is missing has status 127.
 * @param {string} file
 * @param {string[]} args
 * @param {import('node:child_process').SpawnSyncOptions} [options]
 */
export function capture(file, args, options = {}) {
  const result = spawnSync(file, args, { maxBuffer: 64 << 20, ...options, encoding: 'utf8' });
  const error = /** @type {NodeJS.ErrnoException | undefined} */ (result.error);
  if (error && error.code !== 'ENOENT') throw error;
  return {
    status: error ? 127 : (result.status ?? 128),
    stdout: result.stdout ?? '',
    stderr: result.stderr ?? '',
  };
}

/** Whether the program is on the PATH. @param {string} file */
export function isInstalled(file) {
  return capture('sh', ['-c', 'command -v "$1"', 'sh', file]).status === 0;
}

/**
 * Runs a program with its output shown; rejects with the cause guessed from its last lines.
 * @param {string} file
 * @param {string[]} args
 * @param {{what: string, cwd?: string, env?: NodeJS.ProcessEnv, hint?: string, quiet?: boolean}} options
 *   `what` names the job in the error; `quiet` shows the output of a failure only
 */
export async function run(file, args, { what, cwd, env, hint, quiet = false }) {
  const child = spawn(file, args, { cwd, env: env ?? process.env, stdio: ['inherit', 'pipe', 'pipe'] });
  let tail = '';
  const keep = (chunk) => {
    tail = (tail + chunk).slice(-8192);
  };
  child.stdout.setEncoding('utf8').on('data', keep);
  child.stderr.setEncoding('utf8').on('data', keep);
  if (!quiet) {
    child.stdout.pipe(process.stdout, { end: false });
    child.stderr.pipe(process.stderr, { end: false });
  }

  const status = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve(signal ?? code));
  }).catch((error) => {
    if (error.code === 'ENOENT')
      throw new SetUpError(`${what} needs ${file}, which is not installed`, { hint, cause: error });
    throw error;
  });
  if (status === 0) return;
  if (quiet) process.stderr.write(tail);
  throw failure(what, [file, ...args].join(' '), status, tail, hint);
}

/**
 * @param {string} what
 * @param {string} command
 * @param {number | string} status
 * @param {string} tail
 * @param {string} [hint]
 */
function failure(what, command, status, tail, hint) {
  if (/No space left on device|ENOSPC|os error 28/.test(tail)) return noSpace(command);
  if (
    /Could not resolve|Temporary failure resolving|Failed to fetch|Could not connect|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED|network (?:failure|error)|spurious network/i.test(
      tail,
    )
  ) {
    return new SetUpError(`${what} failed: the network cannot be reached`, {
      hint: `Check the connection and the proxy settings, then run the command again: what is already there is kept. (It was: ${command})`,
    });
  }
  return new SetUpError(`${what} failed (${command} ended with ${status})`, { hint });
}
