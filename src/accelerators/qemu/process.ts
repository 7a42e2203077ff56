// The QEMU process: started by the addon, so that it dies with us, with its standard error kept for messages.

import type { BindingChild } from '../../binding.ts';
import { MicroVMError } from '../../errors.ts';
import { describeEnd, environment, readWords } from '../../host/helper-process.ts';
import { qemuProgram } from '../../host/qemu.ts';
import { fromNative } from '../../native-error.ts';
import { loadBinding } from '../../native.ts';

const ENOENT = 2;
const SIGKILL = 9;

export interface QemuProcess {
  readonly pid: number;
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
  const stderr = readWords(child.takeStderr());
  return {
    pid: child.pid,
    ended: child.wait().then(async (status) => describeEnd(status, await stderr.atEnd())),
    kill: () => child.kill(SIGKILL),
  };
}
