import { stat } from 'node:fs/promises';
import { normalizeVirtioFs, type VirtioFsOptions, type VirtioFsSpec } from '../config/virtio-fs-options.ts';
import { MicroVMError, errnoOf } from '../errors.ts';
import { type ShareDaemon, shareArguments, startDaemon } from './daemon.ts';

export type { VirtioFsOptions } from '../config/virtio-fs-options.ts';

/**
 * A daemon that serves a folder or file of this host by virtio-fs to any virtual machine monitor that speaks vhost-user,
 * such as QEMU or Cloud Hypervisor. It ends with this process.
 *
 * ```ts
 * const share = await VirtioFs.serve({ source: '.', socketPath: '/run/me/fs.sock', readonly: true });
 * // qemu … -chardev socket,id=fs,path=/run/me/fs.sock -device vhost-user-fs-pci,chardev=fs,tag=work
 * await share.stop();
 * ```
 */
export class VirtioFs implements AsyncDisposable {
  /** Path of the socket to connect to. */
  readonly socketPath: string;
  readonly #daemon: ShareDaemon;

  private constructor(socketPath: string, daemon: ShareDaemon) {
    this.socketPath = socketPath;
    this.#daemon = daemon;
  }

  /**
   * Starts a daemon; resolves when it listens.
   *
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS` with every wrong option, `ERR_MOUNT_SOURCE`, `ERR_MOUNT_FAILED` with the
   *   daemon's words
   */
  static async serve(options: VirtioFsOptions): Promise<VirtioFs> {
    const spec = normalizeVirtioFs(options);
    const { source } = spec.share;
    await stat(source).catch((cause: unknown) => {
      const why = errnoOf(cause) === 'ENOENT' ? 'does not exist' : `cannot be read (${errnoOf(cause)})`;
      throw new MicroVMError('ERR_MOUNT_SOURCE', `${source}, which is to be shared, ${why}`, { cause });
    });
    const daemon = await startDaemon(daemonArguments(spec), {
      name: `The daemon that serves ${source}`,
      otherwise: "set the option sandbox to 'none'",
    });
    return new VirtioFs(spec.socketPath, daemon);
  }

  /** Resolves when the daemon has ended: with why, where nobody wanted that. Never rejects. */
  get ended(): Promise<string | undefined> {
    return this.#daemon.ended;
  }

  /**
   * Ends the daemon; resolves when it and its files are gone. A guest that uses it hangs from then on. A daemon that does
   * not end in five seconds is killed; its files are left to the next one, which takes them over.
   */
  async stop(): Promise<void> {
    await this.#daemon.stop();
  }

  /** The same as {@link stop}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

function daemonArguments({ share, socketPath, socketGroup, tag, reconnect }: VirtioFsSpec): string[] {
  return [
    ...shareArguments({ ...share, announceSubmounts: true }, socketPath),
    ...(socketGroup === undefined ? [] : [`--socket-group=${socketGroup}`]),
    ...(tag === undefined ? [] : [`--tag=${tag}`]),
    ...(reconnect ? ['--reconnect'] : []),
  ];
}
