// Linux keeps 108 bytes for a Unix socket's path, the closing NUL included; Node cuts longer paths off in silence.

import { MAX_SOCKET_PATH_BYTES } from '../config/values.ts';
import { MicroVMError } from '../errors.ts';

/** What to do about a path of this package's own making. */
const OWN = 'Point XDG_RUNTIME_DIR or TMPDIR at a folder with a shorter path.';
/** What to do about a path that the caller has named. */
const NAMED = 'Choose a shorter path; a relative one counts with the folder that this process works in.';

/**
 * Gives `path` back, or throws `ERR_SOCKET_PATH_TOO_LONG` with a hint that fits whoever has chosen the path.
 *
 * @param chosenBy `caller` where a user's option names it, `us` for the sockets of a machine's own folder
 */
export function checkSocketPath(path: string, chosenBy: 'us' | 'caller' = 'us'): string {
  const bytes = Buffer.byteLength(path);
  if (bytes <= MAX_SOCKET_PATH_BYTES) return path;
  throw new MicroVMError(
    'ERR_SOCKET_PATH_TOO_LONG',
    `The socket path ${path} has ${bytes} bytes; Linux allows ${MAX_SOCKET_PATH_BYTES}`,
    { hint: chosenBy === 'us' ? OWN : NAMED },
  );
}
