// Linux keeps 108 bytes for a Unix socket's path, the closing NUL included; Node cuts longer paths off in silence.

import { MAX_SOCKET_PATH_BYTES } from '../config/values.ts';
import { MicroVMError } from '../errors.ts';

/** Gives `path` back, or throws `ERR_SOCKET_PATH_TOO_LONG`. */
export function checkSocketPath(path: string): string {
  const bytes = Buffer.byteLength(path);
  if (bytes <= MAX_SOCKET_PATH_BYTES) return path;
  throw new MicroVMError(
    'ERR_SOCKET_PATH_TOO_LONG',
    `The socket path ${path} has ${bytes} bytes; Linux allows ${MAX_SOCKET_PATH_BYTES}`,
    { hint: 'Point XDG_RUNTIME_DIR or TMPDIR at a folder with a shorter path.' },
  );
}
