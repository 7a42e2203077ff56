// The daemon as this process's own work: with its arguments, streams and signals.

import { constants } from 'node:os';
import { environment } from '../host/helper-process.ts';
import { fromNative } from '../native-error.ts';
import { loadBinding, virtiofsdPath } from '../native.ts';

const SIGTERM = 15;
const FORWARDED = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const;

/** Runs the daemon until it ends; resolves with its exit code, or 128 and the signal that ended it. */
export async function runDaemon(args: readonly string[]): Promise<number> {
  const child = start(args);
  const forward = (name: (typeof FORWARDED)[number]): void => child.kill(constants.signals[name]);
  for (const name of FORWARDED) process.on(name, forward);
  // A promise alone keeps no process.
  const alive = setInterval(() => {}, 2 ** 30);
  try {
    const { code, signal } = await child.wait();
    return code ?? 128 + (signal ?? 0);
  } finally {
    clearInterval(alive);
    for (const name of FORWARDED) process.off(name, forward);
  }
}

function start(args: readonly string[]): ReturnType<ReturnType<typeof loadBinding>['spawnHelper']> {
  const program = virtiofsdPath();
  const numbers = [0, 1, 2, ...inheritedSocket(args)];
  const fds = numbers.map((fd) => ({ fd, target: fd }));
  try {
    return loadBinding().spawnHelper({
      program,
      args,
      env: environment(),
      fds,
      captureStderr: false,
      endSignal: SIGTERM,
    });
  } catch (error) {
    throw fromNative(error);
  }
}

/** The descriptor of `--fd`, which the daemon inherits through this process. */
function inheritedSocket(args: readonly string[]): number[] {
  const at = args.lastIndexOf('--fd');
  const text = at === -1 ? args.findLast((word) => word.startsWith('--fd='))?.slice(5) : args[at + 1];
  const number = Number(text ?? Number.NaN);
  return Number.isInteger(number) && number > 2 ? [number] : [];
}
