import { homedir } from 'node:os';
import { join } from 'node:path';

/** The cache folder: $MICROVM_CACHE, else microvm in $XDG_CACHE_HOME or ~/.cache. */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  const own = env['MICROVM_CACHE'];
  if (own) return own;
  const shared = env['XDG_CACHE_HOME'];
  return join(shared?.startsWith('/') ? shared : join(env['HOME'] || homedir(), '.cache'), 'microvm');
}
