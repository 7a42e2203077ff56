// Where the private folders live: the user's runtime folder, else one of our own under the folder for temporary files, which others
// can write to as well and may have prepared for us.

import { lstat, mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MicroVMError, errnoOf } from '../errors.ts';

/** Makes the folder when it is missing, and checks that nobody else can look into it or write to it. */
export async function runtimeRoot(env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const uid = process.getuid?.() ?? 0;
  const session = env['XDG_RUNTIME_DIR'];
  const path =
    session !== undefined && session.startsWith('/') && (await isOwn(session, uid))
      ? join(session, 'microvm')
      : join(temporaryRoot(env), `microvm-${uid}`);
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (cause) {
    if (errnoOf(cause) !== 'EEXIST') {
      throw unusable(`Cannot make the runtime folder ${path} (${errnoOf(cause)})`, cause);
    }
  }
  const found = await lstat(path);
  if (!found.isDirectory()) throw unusable(`The runtime folder ${path} is not a folder`);
  if (found.uid !== uid) throw unusable(`The runtime folder ${path} belongs to user ${found.uid}, not to you (${uid})`);
  if ((found.mode & 0o077) !== 0) throw unusable(`The runtime folder ${path} is open to other users`);
  return path;
}

/** A path that is empty or relative would put the folder wherever the program happens to run. */
function temporaryRoot(env: NodeJS.ProcessEnv): string {
  return [env['TMPDIR'], tmpdir()].find((path) => path?.startsWith('/')) ?? '/tmp';
}

/** A session's folder is left over in the environment after `su` and `sudo`, or does not exist in a container. */
async function isOwn(path: string, uid: number): Promise<boolean> {
  const found = await lstat(path).catch(() => undefined);
  return found?.isDirectory() === true && found.uid === uid;
}

function unusable(message: string, cause?: unknown): MicroVMError {
  return new MicroVMError('ERR_RUNTIME_FOLDER', message, {
    ...(cause !== undefined && { cause }),
    hint: 'Remove it (or have it removed), or set XDG_RUNTIME_DIR to a folder of your own with mode 0700.',
  });
}
