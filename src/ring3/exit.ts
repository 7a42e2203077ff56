// Why a program stopped, as one union to switch over by `reason`.

import type { BindingRing3Exit } from './binding.ts';
import type { Registers } from './state.ts';

/** What every exit has. */
interface Left {
  /** What the program was left with: give them back, changed or not, to go on. */
  readonly registers: Registers;
}

/** The program raised an exception of the processor. */
export interface FaultExit extends Left {
  readonly reason: 'fault';
  /** Number of the exception: 14 for a page fault, 13 for a general protection fault, 6 for an undefined instruction. */
  readonly vector: number;
  /** The processor's error code; 0 for exceptions without one. */
  readonly errorCode: number;
  /** The address, of a page fault. */
  readonly address: bigint | undefined;
  /** What a page fault was for. */
  readonly access: 'read' | 'write' | 'execute' | undefined;
}

/** The program touched memory that the host cannot give it: a mapped file has become shorter. */
export interface BusErrorExit extends Left {
  readonly reason: 'bus-error';
  /** The page's address, where the kernel tells it. */
  readonly address: bigint | undefined;
}

/** Why a program stopped. */
export type Exit =
  /** It made a system call: the number is in `rax`, and `rip` is behind the instruction. */
  | (Left & { readonly reason: 'system-call' })
  | FaultExit
  | BusErrorExit
  /** `interrupt()` was called, or the signal aborted. */
  | (Left & { readonly reason: 'interrupted' })
  /** The time given to the switch is over. */
  | (Left & { readonly reason: 'timed-out' });

/** The public form of an exit. */
export function toExit(exit: BindingRing3Exit): Exit {
  const { reason, registers, vector = 0, errorCode = 0, address, access } = exit;
  if (reason === 'fault') return { reason, vector, errorCode, address, access, registers };
  if (reason === 'bus-error') return { reason, address, registers };
  return { reason, registers };
}
