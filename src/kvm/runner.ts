// Runs a vCPU, on a thread of its own.

import { MicroVMError } from '../errors.ts';
import type { BindingVirtualCpuRunner } from './binding.ts';
import { type Exit, toExit } from './exit.ts';
import { call, callAsync, invalid } from './native.ts';
import { VirtualCpuState } from './virtual-cpu-state.ts';

/** How a vCPU runs. */
export interface RunOptions {
  /** The answer to the exit before, instead of its `answer()`. */
  readonly answer?: Uint8Array;
  /** Ends the run as `interrupted` when aborted; aborted already, the guest is not entered. */
  readonly signal?: AbortSignal;
}

/**
 * A vCPU that can run.
 *
 * ```ts
 * for (;;) {
 *   const exit = await runner.run()
 *   if (exit.reason === 'io-out') process.stdout.write(exit.data)
 *   else if (exit.reason === 'io-in') exit.answer(new Uint8Array(exit.size * exit.count))
 *   else break
 * }
 * ```
 */
export class VirtualCpuRunner extends VirtualCpuState {
  readonly #native: BindingVirtualCpuRunner;
  /** Whether `interrupt()` was called and no run has ended by it yet. */
  #interrupted = false;
  /** Counts exits, so that a stale one cannot be answered. */
  #exits = 0;

  /** Runners are made by {@link VirtualCpu.createRunner}. */
  constructor(vcpu: unknown, runner: unknown) {
    super(vcpu);
    this.#native = runner as BindingVirtualCpuRunner;
  }

  /**
   * Runs the vCPU until it leaves the guest. Node's event loop goes on meanwhile.
   *
   * @throws {MicroVMError} `ERR_KVM_BUSY` where it runs already, `ERR_KVM_INVALID_ANSWER`, `ERR_KVM_CLOSED`.
   */
  async run(options: RunOptions = {}): Promise<Exit> {
    const { answer, signal } = options;
    if (answer !== undefined) this.#answer(answer, this.#exits);
    if (signal?.aborted) return { reason: 'interrupted' };
    let aborted = false;
    const abort = (): void => {
      aborted = true;
      call(() => this.#native.interrupt());
    };
    signal?.addEventListener('abort', abort, { once: true });
    try {
      const exit = this.#exit(await callAsync(() => this.#native.run()));
      if (exit.reason === 'interrupted') this.#interrupted = false;
      // The guest left by itself before the signal could end the run: the next one must not pay for it.
      else if (aborted && !this.#interrupted) this.#native.withdrawInterrupt();
      return exit;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /**
   * Completes the exit before without running the guest, so that registers and memory show its outcome: an answered
   * read has reached its register. Do it before state is read to be kept. `interrupted` says that it is complete; a
   * string instruction may ask for more instead.
   */
  completeExit(): Exit {
    return this.#exit(call(() => this.#native.completeExit()));
  }

  /** Ends the run under way, or else the next one, as `interrupted`. */
  interrupt(): void {
    this.#interrupted = true;
    call(() => this.#native.interrupt());
  }

  #exit(exit: Parameters<typeof toExit>[0]): Exit {
    const which = ++this.#exits;
    return toExit(exit, (bytes) => this.#answer(bytes, which));
  }

  #answer(bytes: Uint8Array, exit: number): void {
    if (!(bytes instanceof Uint8Array)) throw invalid('An answer must be a Uint8Array');
    if (exit !== this.#exits) {
      throw new MicroVMError('ERR_KVM_INVALID_ANSWER', 'The exit was answered too late: the vCPU has run since');
    }
    call(() => this.#native.answer(bytes));
  }
}
