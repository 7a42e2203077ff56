// The registers that a caller gives, checked and made whole.

import { nearest } from '../config/suggest.ts';
import { invalid } from '../native-call.ts';
import type { Registers } from './state.ts';

const ZERO: Registers = {
  rax: 0n,
  rbx: 0n,
  rcx: 0n,
  rdx: 0n,
  rsi: 0n,
  rdi: 0n,
  rbp: 0n,
  rsp: 0n,
  r8: 0n,
  r9: 0n,
  r10: 0n,
  r11: 0n,
  r12: 0n,
  r13: 0n,
  r14: 0n,
  r15: 0n,
  rip: 0n,
  rflags: 0n,
};

/**
 * All registers, those that are left out as 0.
 *
 * @throws {MicroVMError} `ERR_INVALID_OPTIONS`
 */
export function wholeRegisters(given: Partial<Registers>): Registers {
  if (typeof given !== 'object' || given === null) throw invalid('registers must be an object of bigints');
  for (const [name, value] of Object.entries(given) as [string, unknown][]) {
    if (!Object.hasOwn(ZERO, name)) {
      const meant = nearest(name, Object.keys(ZERO));
      throw invalid(`There is no register ${name}${meant === undefined ? '' : `; did you mean ${meant}?`}`);
    }
    if (typeof value !== 'bigint' || value < 0n || value >= 2n ** 64n) {
      throw invalid(`registers.${name} must be a bigint from 0 to 2^64 - 1, not ${String(value)}`);
    }
  }
  return { ...ZERO, ...given };
}
