// The QEMU process: started by the addon, so that it dies with us, with its standard error kept for messages.

import type { BindingChild } from '../../binding.ts';
import { MicroVMError } from '../../errors.ts';
import { streamOf } from '../../host/descriptor.ts';
import { fromNative } from '../../native-error.ts';
import { loadBinding } from '../../native.ts';

const ENOENT = 2;
const SIGKILL = 9;
/** QEMU says why it ends in a line or two. */
const STDERR_BYTES = 4096;

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
  const program = process.env['MICROVM_QEMU'] || 'qemu-system-x86_64';
  let child: BindingChild;
  try {
    child = loadBinding().spawnHelper({ program, args, env: environment(), fds, captureStderr: true });
  } catch (error) {
    if ((error as { errno?: number }).errno !== ENOENT) throw fromNative(error);
    throw new MicroVMError('ERR_QEMU_MISSING', `${program} was not found`, {
      cause: error,
      hint: 'Install QEMU (Debian: apt-get install qemu-system-x86), or name it in MICROVM_QEMU.',
    });
  }
  const lastWords = readTail(child.takeStderr());
  return {
    ended: Promise.all([child.wait(), lastWords]).then(([{ code, signal }, words]) =>
      [signal === undefined ? `exit code ${code}` : `signal ${signal}`, words].filter(Boolean).join(': '),
    ),
    kill: () => child.kill(SIGKILL),
  };
}

function environment(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}

async function readTail(fd: number | null): Promise<string> {
  if (fd === null) return '';
  let tail = '';
  try {
    for await (const text of streamOf(fd).setEncoding('utf8')) tail = (tail + String(text)).slice(-STDERR_BYTES);
  } catch {
    // What was read until then has to do.
  }
  return tail.trim();
}
