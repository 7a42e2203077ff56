// Runs static Linux programs without a guest kernel.

import { MicroVMError } from '../errors.ts';
import { loadBinding } from '../native.ts';
import { callAsync } from '../native-call.ts';
import type { BindingSandbox } from './binding.ts';
import { nativePlatform, Platform } from './platform.ts';
import { checkRun, type RunOptions } from './run-options.ts';
import { run, type RunResult } from './run.ts';
import { bindingOptions, checkSandboxOptions, type UserSandboxOptions } from './sandbox-options.ts';

/** Options of which it is known that they ask for bytes. */
interface BytesWanted {
  readonly encoding: 'buffer';
}

/** Options of which it is known that they ask for text. */
interface TextWanted {
  readonly encoding?: 'utf8' | undefined;
}

/**
 * A place to run static Linux programs: user-mode code in a virtual machine without a kernel, whose system calls this
 * process answers. Programs see a folder of the host to read only, and files in memory; they have no network and cannot
 * start other programs.
 *
 * ```ts
 * await using box = await UserSandbox.create({ memory: '64MiB', root: '/srv/data' })
 * const { stdout } = await box.run('/bin/busybox', ['sha256sum', '/f'])
 * ```
 */
export class UserSandbox implements AsyncDisposable {
  readonly #native: BindingSandbox;
  /** The machine, where it is this sandbox's own. */
  readonly #ownPlatform: Platform | undefined;
  readonly #options: UserSandboxOptions;
  #closed = false;

  private constructor(native: BindingSandbox, ownPlatform: Platform | undefined, options: UserSandboxOptions) {
    this.#native = native;
    this.#ownPlatform = ownPlatform;
    this.#options = options;
  }

  /**
   * Makes a sandbox. When it rejects nothing is left behind.
   *
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS` with every wrong option; `ERR_RING3_FILE` where `root` cannot be opened;
   *   `ERR_EXEC_CWD`; as {@link Platform.open} where it makes a machine.
   */
  static async create(options: UserSandboxOptions = {}): Promise<UserSandbox> {
    checkSandboxOptions(options);
    const own = options.platform === undefined ? await Platform.open('kvm') : undefined;
    try {
      const platform = nativePlatform(options.platform ?? own);
      const native = await callAsync(() => loadBinding().BindingSandbox.create(platform, bindingOptions(options)));
      return new UserSandbox(native, own, options);
    } catch (error) {
      await own?.close();
      throw error;
    }
  }

  /**
   * Runs a program to its end. `file` is a path of the host, not looked up under `root`; what the program opens is. One
   * program runs at a time, each with memory as if none had run before; the files that one has written are there for the
   * next, until {@link reset}.
   *
   * @throws {MicroVMError} `ERR_EXEC_FAILED` for another exit code than 0, a signal or a limit, and `ERR_EXEC_TIMEOUT`,
   *   unless `reject` is false; `ERR_INVALID_OPTIONS`, `ERR_PROGRAM_MISSING`, `ERR_PROGRAM_INVALID`, `ERR_EXEC_ABORTED`,
   *   `ERR_SYSCALL_HOOK`, `ERR_RING3_BUSY` and `ERR_RING3_CLOSED` always. The error has the result's fields.
   */
  run(file: string, args: readonly string[], options: RunOptions & BytesWanted): Promise<RunResult<Buffer>>;
  run(file: string, args?: readonly string[], options?: RunOptions & TextWanted): Promise<RunResult>;
  run(file: string, args?: readonly string[], options?: RunOptions): Promise<RunResult<string | Buffer>>;
  async run(file: string, args: readonly string[] = [], options: RunOptions = {}): Promise<RunResult<string | Buffer>> {
    checkRun(file, args, options);
    if (this.#closed) throw new MicroVMError('ERR_RING3_CLOSED', 'The sandbox is closed');
    const { env = {}, limits } = this.#options;
    const box = { native: this.#native, env, wallTime: limits?.wallTime, isClosed: () => this.#closed };
    return run(box, file, args, options);
  }

  /**
   * Makes the sandbox as it was when it was made: memory and files. Quicker than a new one.
   *
   * @throws {MicroVMError} `ERR_RING3_BUSY` while a program runs, `ERR_RING3_CLOSED`.
   */
  async reset(): Promise<void> {
    await callAsync(() => this.#native.reset());
  }

  /** Closes the sandbox; a run under way ends. Resolves when nothing of it is left. Calling it again does nothing. */
  async close(): Promise<void> {
    this.#closed = true;
    await callAsync(() => this.#native.close());
    await this.#ownPlatform?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
