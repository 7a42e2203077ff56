// Why a vCPU left the guest, as one union to switch over by `reason`.

import type { BindingExit } from './binding.ts';

/** The guest reads a port, and waits. */
export interface IoIn {
  readonly reason: 'io-in';
  readonly port: number;
  /** Bytes of one access: 1, 2 or 4. */
  readonly size: number;
  /** Accesses; more than 1 for string instructions. */
  readonly count: number;
  /** Gives the guest what it reads: `size * count` bytes, before the next run. Unanswered, it reads what KVM left. */
  answer(bytes: Uint8Array): void;
}

/** The guest wrote to a port. */
export interface IoOut {
  readonly reason: 'io-out';
  readonly port: number;
  /** Bytes of one access: 1, 2 or 4. */
  readonly size: number;
  /** Accesses; more than 1 for string instructions. */
  readonly count: number;
  /** `size * count` bytes. */
  readonly data: Uint8Array;
}

/** The guest reads where no memory is, and waits. */
export interface MmioRead {
  readonly reason: 'mmio-read';
  /** Guest physical address. */
  readonly address: bigint;
  /** Bytes: 1 to 8. */
  readonly size: number;
  /** Gives the guest what it reads: `size` bytes, before the next run. */
  answer(bytes: Uint8Array): void;
}

/** The guest wrote where no memory is. */
export interface MmioWrite {
  readonly reason: 'mmio-write';
  /** Guest physical address. */
  readonly address: bigint;
  readonly data: Uint8Array;
}

/** KVM cannot go on, most often because it cannot emulate an instruction (suberror 1). */
export interface InternalErrorExit {
  readonly reason: 'internal-error';
  readonly suberror: number;
  /** What comes with it; the meaning depends on `suberror`. */
  readonly data: readonly bigint[];
  /** The instruction's bytes, where KVM tells them. */
  readonly instruction: Uint8Array | undefined;
}

/** Why a vCPU left the guest. */
export type Exit =
  | IoIn
  | IoOut
  | MmioRead
  | MmioWrite
  | InternalErrorExit
  /** The guest halted. */
  | { readonly reason: 'hlt' }
  /** The guest reset: a triple fault, usually. */
  | { readonly reason: 'shutdown' }
  /** The run was ended from outside; nothing happened in the guest. */
  | { readonly reason: 'interrupted' }
  /** The processor refused the guest's state. */
  | { readonly reason: 'fail-entry'; readonly hardwareReason: bigint; readonly cpu: number }
  /** The guest asked for a reset or power-off in a way that KVM knows. */
  | { readonly reason: 'system-event'; readonly kind: number; readonly data: readonly bigint[] }
  /** A breakpoint or single step; see `setGuestDebug`. */
  | {
      readonly reason: 'debug';
      readonly exception: number;
      readonly address: bigint;
      readonly dr6: bigint;
      readonly dr7: bigint;
    }
  | { readonly reason: 'exception'; readonly exception: number; readonly errorCode: number }
  | {
      readonly reason: 'memory-fault';
      readonly address: bigint;
      readonly size: bigint;
      readonly flags: bigint;
    }
  | {
      readonly reason: 'hypercall';
      readonly number: bigint;
      readonly arguments: readonly bigint[];
      /** Gives the guest the call's result. */
      answer(result: bigint): void;
    }
  | {
      readonly reason: 'msr-read';
      readonly index: number;
      readonly flags: bigint;
      /** Gives the guest the register's value. */
      answer(value: bigint): void;
    }
  | { readonly reason: 'msr-write'; readonly index: number; readonly flags: bigint; readonly value: bigint }
  | { readonly reason: 'ioapic-eoi'; readonly vector: number }
  | { readonly reason: 'irq-window-open' | 'set-tpr' | 'tpr-access' | 'nmi' }
  /** The processor left the guest for a reason that KVM does not know. */
  | { readonly reason: 'unknown'; readonly hardwareReason: bigint }
  /** An exit that this package does not know. */
  | { readonly reason: 'unsupported'; readonly exitReason: number };

/** The public form of an exit; `answer` writes to the vCPU what the guest gets. */
export function toExit(exit: BindingExit, answer: (bytes: Uint8Array) => void): Exit {
  const { port = 0, size = 0, count = 0, address = 0n, number = 0n, detail = 0, flags = 0n, words = [] } = exit;
  const data = exit.data ?? new Uint8Array();
  const answerWord = (value: bigint): void => answer(littleEndian(value));
  switch (exit.reason) {
    case 'io-in':
      return { reason: 'io-in', port, size, count, answer };
    case 'io-out':
      return { reason: 'io-out', port, size, count, data };
    case 'mmio-read':
      return { reason: 'mmio-read', address, size: exit.answerLength ?? 0, answer };
    case 'mmio-write':
      return { reason: 'mmio-write', address, data };
    case 'internal-error':
      return { reason: 'internal-error', suberror: detail, data: words, instruction: exit.data };
    case 'fail-entry':
      return { reason: 'fail-entry', hardwareReason: number, cpu: detail };
    case 'system-event':
      return { reason: 'system-event', kind: detail, data: words };
    case 'debug':
      return { reason: 'debug', exception: detail, address, dr6: words[0] ?? 0n, dr7: words[1] ?? 0n };
    case 'exception':
      return { reason: 'exception', exception: Number(number), errorCode: detail };
    case 'memory-fault':
      return { reason: 'memory-fault', address, size: words[0] ?? 0n, flags };
    case 'hypercall':
      return { reason: 'hypercall', number, arguments: words, answer: answerWord };
    case 'msr-read':
      return { reason: 'msr-read', index: Number(number), flags, answer: answerWord };
    case 'msr-write':
      return { reason: 'msr-write', index: Number(number), flags, value: words[0] ?? 0n };
    case 'ioapic-eoi':
      return { reason: 'ioapic-eoi', vector: Number(number) };
    case 'hlt':
    case 'shutdown':
    case 'interrupted':
    case 'irq-window-open':
    case 'set-tpr':
    case 'tpr-access':
    case 'nmi':
      return { reason: exit.reason };
    case 'unknown':
      return { reason: 'unknown', hardwareReason: number };
    default:
      return { reason: 'unsupported', exitReason: Number(number) };
  }
}

function littleEndian(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
}
