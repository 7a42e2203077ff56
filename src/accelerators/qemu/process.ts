// The QEMU process: started by the addon, so that it dies with us, with its standard error kept for messages.

import { once } from 'node:events';
import type { BindingChild } from '../../binding.ts';
import { MicroVMError } from '../../errors.ts';
import { streamOf } from '../../host/descriptor.ts';
import { qemuProgram } from '../../host/qemu.ts';
import { waitAtMost } from '../../host/wait-at-most.ts';
import { fromNative } from '../../native-error.ts';
import { loadBinding } from '../../native.ts';

const ENOENT = 2;
const SIGKILL = 9;
/** QEMU says why it ends in a line or two. */
const STDERR_BYTES = 4096;
/** Milliseconds that its words may take to arrive when it has ended. */
const LAST_WORDS_MS = 1_000;

export interface QemuProcess {
  /** Resolves with what there is to say about its end: exit status and last words. */
  readonly ended: Promise<string>;
  kill(): void;
}

/**
 * Starts QEMU with descriptors passed under the given numbers.
 *
 * @throws {MicroVMError} `ERR_QEMU_MISSING`, `ERR_SPAWN_FAILED`
 */
export function startQemu(args: readonly string[], fds: readonly { fd: number; target: number }[]): QemuProcess {
  const program = qemuProgram(process.env);
  let child: BindingChild;
  try {
    child = loadBinding().spawnHelper({ program, args, env: environment(), fds, captureStderr: true });
  } catch (error) {
    if ((error as { errno?: number }).errno !== ENOENT) throw fromNative(error);
    // What to do about it is the doctor's to say, when the start has failed.
    throw new MicroVMError('ERR_QEMU_MISSING', `${program} was not found`, { cause: error });
  }
  const stderr = readTail(child.takeStderr());
  return {
    ended: child.wait().then(async ({ code, signal }) => {
      const words = await stderr.atEnd();
      return [signal === undefined ? `exit code ${code}` : `signal ${signal}`, words].filter(Boolean).join(': ');
    }),
    kill: () => child.kill(SIGKILL),
  };
}

function environment(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}

interface Tail {
  /** What was said, when all of it came or nothing more can be waited for: a child of the process may hold its end open. */
  atEnd(): Promise<string>;
}

function readTail(fd: number | null): Tail {
  if (fd === null) return { atEnd: () => Promise.resolve('') };
  const stream = streamOf(fd).setEncoding('utf8');
  let tail = '';
  stream.on('data', (text: string) => {
    tail = (tail + text).slice(-STDERR_BYTES);
  });
  const closed = once(stream, 'close');
  // What was read until a failure has to do.
  closed.catch(() => {});
  return {
    async atEnd() {
      await waitAtMost(closed, LAST_WORDS_MS);
      stream.destroy();
      return tail.trim();
    },
  };
}
