export type CacheKind = 'kernel' | 'userland' | 'initramfs' | 'vmlinux' | 'temporary' | 'other';

export interface CacheEntry {
  readonly kind: CacheKind;
  readonly path: string;
  readonly bytes: number;
  readonly usedAt: Date;
  /** A running process holds it. */
  readonly inUse: boolean;
}

/** The cache folder: $MICROVM_CACHE, else microvm in $XDG_CACHE_HOME or ~/.cache. */
export function cacheFolder(_env: NodeJS.ProcessEnv = process.env): string {
  throw new Error('Not written yet');
}

export async function listCache(_folder: string = cacheFolder()): Promise<CacheEntry[]> {
  throw new Error('Not written yet');
}

/** Removes what nobody uses. */
export async function cleanCache(
  _options: { readonly folder?: string; readonly kinds?: readonly CacheKind[] } = {},
): Promise<{ readonly removed: CacheEntry[]; readonly kept: CacheEntry[] }> {
  throw new Error('Not written yet');
}
