// What a vCPU and its runner have in common: registers and the rest of the state, and closing.

import type { BindingVirtualCpu } from './binding.ts';
import { call, callAsync, invalid } from './native.ts';
import {
  type CpuidEntry,
  type DebugRegs,
  type Fpu,
  MP_STATES,
  type MpState,
  type Msr,
  type Regs,
  type Sregs,
  type VcpuEvents,
  type Xcr,
} from './state.ts';

/** What the host debugs in a guest. */
export interface GuestDebug {
  /** Leave the guest after each instruction. @default false */
  readonly singleStep?: boolean;
  /** Leave the guest at `int3`. @default false */
  readonly softwareBreakpoints?: boolean;
  /** DR0 to DR7 with the host's breakpoints. @default none */
  readonly hardwareBreakpoints?: readonly bigint[];
}

const DEBUG_ENABLE = 1;
const DEBUG_SINGLE_STEP = 2;
const DEBUG_SOFTWARE = 0x1_0000;
const DEBUG_HARDWARE = 0x2_0000;

/**
 * The state of a vCPU. Every getter and setter is one ioctl; while the vCPU runs they throw `ERR_KVM_BUSY`. What is out
 * of a field's range is refused with `ERR_INVALID_OPTIONS`.
 */
export abstract class VirtualCpuState {
  readonly #native: BindingVirtualCpu;

  protected constructor(native: unknown) {
    this.#native = native as BindingVirtualCpu;
  }

  /** Number of the vCPU in its machine. */
  get id(): number {
    return this.#native.id;
  }

  /** Reads the general registers. */
  getRegs(): Regs {
    return call(() => this.#native.getRegs());
  }

  /** Sets the general registers. */
  setRegs(regs: Regs): void {
    call(() => this.#native.setRegs(regs));
  }

  /** Reads, changes and sets the general registers; hands back what `change` returns. */
  modifyRegs<T>(change: (regs: Regs) => T): T {
    const regs = this.getRegs();
    const result = change(regs);
    this.setRegs(regs);
    return result;
  }

  /** Reads the segment, control and descriptor table registers. */
  getSregs(): Sregs {
    return call(() => this.#native.getSregs());
  }

  /** Sets the segment, control and descriptor table registers. */
  setSregs(sregs: Sregs): void {
    call(() => this.#native.setSregs(sregs));
  }

  /** As {@link modifyRegs}, for the segment, control and descriptor table registers. */
  modifySregs<T>(change: (sregs: Sregs) => T): T {
    const sregs = this.getSregs();
    const result = change(sregs);
    this.setSregs(sregs);
    return result;
  }

  /** Reads the x87 and SSE registers. */
  getFpu(): Fpu {
    return call(() => this.#native.getFpu());
  }

  /** Sets the x87 and SSE registers. */
  setFpu(fpu: Fpu): void {
    call(() => this.#native.setFpu(fpu));
  }

  /**
   * Reads model-specific registers, in the order of `indices`.
   *
   * @throws {MicroVMError} `ERR_KVM_FAILED`, naming the first register that KVM refuses.
   */
  getMsrs(indices: readonly number[]): Msr[] {
    return call(() => this.#native.getMsrs(indices));
  }

  /** Sets model-specific registers, in this order; where KVM refuses one, those before it are set. */
  setMsrs(msrs: readonly Msr[]): void {
    call(() => this.#native.setMsrs(msrs));
  }

  /** Reads the CPUID that the guest sees. */
  getCpuid(): CpuidEntry[] {
    return call(() => this.#native.getCpuid());
  }

  /** Sets the CPUID that the guest sees. */
  setCpuid(entries: readonly CpuidEntry[]): void {
    call(() => this.#native.setCpuid(entries));
  }

  /** Reads pending exceptions, interrupts, NMIs and SMIs. */
  getEvents(): VcpuEvents {
    return call(() => this.#native.getVcpuEvents());
  }

  /** Sets pending exceptions, interrupts, NMIs and SMIs. */
  setEvents(events: VcpuEvents): void {
    call(() => this.#native.setVcpuEvents(events));
  }

  /** Reads whether the vCPU runs, is halted, or waits for its start. */
  getMpState(): MpState {
    const number = call(() => this.#native.getMpState());
    const state = Object.entries(MP_STATES).find(([, value]) => value === number);
    if (!state) throw invalid(`KVM has put the vCPU into a state that is not known here: ${number}`);
    return state[0] as MpState;
  }

  /** Sets whether the vCPU runs, is halted, or waits for its start. */
  setMpState(state: MpState): void {
    const number = MP_STATES[state];
    if (number === undefined) throw invalid(`No such state of a vCPU: ${String(state)}`);
    call(() => this.#native.setMpState(number));
  }

  /** Reads the extended state (x87, SSE, AVX and later ones), in the layout of the XSAVE instruction. */
  getXsave(): Uint8Array {
    return call(() => this.#native.getXsave());
  }

  /** Sets the extended state; as many bytes as {@link getXsave} gives on this host. */
  setXsave(bytes: Uint8Array): void {
    call(() => this.#native.setXsave(bytes));
  }

  /** Reads the extended control registers. */
  getXcrs(): Xcr[] {
    return call(() => this.#native.getXcrs());
  }

  /** Sets the extended control registers. */
  setXcrs(xcrs: readonly Xcr[]): void {
    call(() => this.#native.setXcrs(xcrs));
  }

  /** Reads the debug registers. */
  getDebugRegs(): DebugRegs {
    return call(() => this.#native.getDebugRegs());
  }

  /** Sets the debug registers. */
  setDebugRegs(debugRegs: DebugRegs): void {
    call(() => this.#native.setDebugRegs(debugRegs));
  }

  /** Debugs the guest from here: `debug` exits; undefined ends it. Some hosts accept this and do nothing. */
  setGuestDebug(debug: GuestDebug | undefined): void {
    const registers = debug?.hardwareBreakpoints;
    const control =
      (debug ? DEBUG_ENABLE : 0) |
      (debug?.singleStep ? DEBUG_SINGLE_STEP : 0) |
      (debug?.softwareBreakpoints ? DEBUG_SOFTWARE : 0) |
      (registers ? DEBUG_HARDWARE : 0);
    call(() => this.#native.setGuestDebug(control, registers ?? Array<bigint>(8).fill(0n)));
  }

  /** Closes the vCPU and its runner; a run under way ends as `interrupted`. Calling it again does nothing. */
  close(): Promise<void> {
    return callAsync(() => this.#native.close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Starts to close, without waiting. */
  [Symbol.dispose](): void {
    void this.close();
  }
}
