/** A private folder for one machine's sockets. */
export interface RuntimeFolder {
  readonly path: string;
  /** The path of a socket in the folder; throws when it (with a `_<port>` suffix) would be too long for Linux. */
  socketPath(name: string): string;
  /** Removes the folder and all in it. Calling it again does nothing. */
  remove(): Promise<void>;
  /** The same for `process.on('exit')`. */
  removeSync(): void;
}

/** Makes a private folder, and sweeps those whose owners died. */
export async function createRuntimeFolder(): Promise<RuntimeFolder> {
  throw new Error('Not written yet');
}
