// A thread of a program: what is left of its processor when it does not run, and running it.

import { call, callAsync, invalid, unsigned } from '../native-call.ts';
import { type AddressSpace, nativeSpace } from './address-space.ts';
import type { BindingContext } from './binding.ts';
import { type Exit, toExit } from './exit.ts';
import { wholeRegisters } from './registers.ts';
import type { Registers, SegmentBases } from './state.ts';

/** How a switch is done. */
export interface SwitchOptions {
  /**
   * `'full'` sets all registers; `'partial'` all but RCX and R11, which the program finds with its RIP and RFLAGS, as
   * after any system call.
   * @default 'full'
   */
  readonly restore?: 'full' | 'partial' | undefined;
  /** Milliseconds that the switch may take, the wait for a vCPU included. @default as long as it likes */
  readonly timeout?: number | undefined;
  /** Ends the switch as `interrupted` when aborted; aborted already, the program does not run. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * A thread of a program. It keeps segment bases and the x87, SSE and AVX state from one switch to the next; the general
 * registers are the caller's.
 *
 * ```ts
 * let exit = await context.switch(space, { rip: 0x40_0000n })
 * while (exit.reason === 'system-call') {
 *   exit = await context.switch(space, { ...exit.registers, rax: answer(exit.registers) })
 * }
 * ```
 */
export class Context implements AsyncDisposable {
  readonly #native: BindingContext;
  /** Whether `interrupt()` was called and no switch has ended by it yet. */
  #interrupted = false;

  /** Contexts are made by {@link Platform.newContext}. */
  constructor(native: unknown) {
    this.#native = native as BindingContext;
  }

  /**
   * Runs the program with these registers (0 where they are left out) in this address space until it wants something or
   * is stopped, on a thread of its own: Node's event loop goes on meanwhile. The registers that it is left with are in
   * the exit.
   *
   * @throws {MicroVMError} `ERR_RING3_BUSY` where it runs already; `ERR_RING3_CLOSED` where the context or the space was
   *   closed, also meanwhile; `ERR_INVALID_OPTIONS`; `ERR_RING3_FAILED` or `ERR_KVM_FAILED` where KVM fails.
   */
  async switch(space: AddressSpace, registers: Partial<Registers>, options: SwitchOptions = {}): Promise<Exit> {
    const native = nativeSpace(space);
    const whole = wholeRegisters(registers);
    const { restore = 'full', timeout, signal } = checked(options);
    if (signal?.aborted) return { reason: 'interrupted', registers: whole };
    let aborted = false;
    const abort = (): void => {
      aborted = true;
      call(() => this.#native.interrupt());
    };
    signal?.addEventListener('abort', abort, { once: true });
    try {
      const how = { partial: restore === 'partial', ...(timeout !== undefined && { timeoutMs: timeout }) };
      const exit = toExit(await callAsync(() => this.#native.switch(native, whole, how)));
      if (exit.reason === 'interrupted') this.#interrupted = false;
      return exit;
    } finally {
      signal?.removeEventListener('abort', abort);
      // The program stopped by itself before the signal could end the switch: the next one must not pay for it.
      if (aborted && !this.#interrupted) this.#native.withdrawInterrupt();
    }
  }

  /** Ends the switch under way, or else the next one, as `interrupted`. None is lost; several before one switch are one. */
  interrupt(): void {
    this.#interrupted = true;
    call(() => this.#native.interrupt());
  }

  /** Bases of FS and GS. */
  segmentBases(): SegmentBases {
    return call(() => this.#native.segmentBases());
  }

  /** Sets the bases of FS and GS, addresses below 2^47. */
  setSegmentBases({ fs, gs }: SegmentBases): void {
    const bases = { fs: unsigned(fs, 'fs'), gs: unsigned(gs, 'gs') };
    call(() => this.#native.setSegmentBases(bases));
  }

  /** The x87, SSE and AVX state in the layout of XSAVE; empty where it is that of a reset. */
  extendedState(): Uint8Array {
    return call(() => this.#native.extendedState());
  }

  /** Sets the state, as {@link extendedState} gave it. What the processor refuses is an error of the next switch. */
  setExtendedState(state: Uint8Array): void {
    if (!(state instanceof Uint8Array)) throw invalid('state must be a Uint8Array');
    call(() => this.#native.setExtendedState(state));
  }

  /** Closes the context; a switch under way ends. Calling it again does nothing. */
  close(): Promise<void> {
    return callAsync(() => this.#native.close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function checked(options: SwitchOptions): SwitchOptions {
  if (typeof options !== 'object' || options === null) throw invalid('options must be an object');
  const { restore, timeout, signal } = options;
  if (restore !== undefined && restore !== 'full' && restore !== 'partial') {
    throw invalid(`restore must be 'full' or 'partial', not ${String(restore)}`);
  }
  if (timeout !== undefined && !(typeof timeout === 'number' && timeout >= 0 && timeout <= Number.MAX_SAFE_INTEGER)) {
    throw invalid(`timeout must be milliseconds, not ${String(timeout)}`);
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalid('signal must be an AbortSignal');
  return options;
}
