// Calls into the addon by the low-level faces: errors, and integers as the addon takes them.

import { MicroVMError } from './errors.ts';
import { fromNative } from './native-error.ts';

/** Calls the addon; what it throws becomes a `MicroVMError`. `device` is the KVM device that the call is about. */
export function call<T>(f: () => T, device?: string): T {
  try {
    return f();
  } catch (error) {
    throw toMicroVMError(error, device);
  }
}

/** As {@link call}, for a promise. */
export async function callAsync<T>(f: () => Promise<T>, device?: string): Promise<T> {
  try {
    return await f();
  } catch (error) {
    throw toMicroVMError(error, device);
  }
}

/** An address, offset or length as the addon takes it. */
export function unsigned(value: bigint | number, name: string): bigint {
  if (typeof value === 'bigint' && value >= 0n && value < 2n ** 64n) return value;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  throw invalid(`${name} must be an integer from 0 to 2^64 - 1, as a bigint or a safe number, not ${String(value)}`);
}

/** The error of an argument that no call can be made with. */
export function invalid(message: string, cause?: unknown): MicroVMError {
  return new MicroVMError('ERR_INVALID_OPTIONS', message, cause === undefined ? {} : { cause });
}

/** napi's words for a value of the wrong type. */
const WRONG_TYPE = /^(InvalidArg|\w+Expected)$/;

function toMicroVMError(error: unknown, device?: string): MicroVMError {
  const wrongType = error instanceof Error && 'code' in error && WRONG_TYPE.test(String(error.code));
  return wrongType ? invalid(`A value has the wrong type: ${error.message}`, error) : fromNative(error, {}, device);
}
