// Failures of the native addon as the package's own errors.

import { MicroVMError, type MicroVMErrorCode, type MicroVMErrorDetails } from './errors.ts';
import { kvmHint } from './doctor/kvm/hint.ts';

/**
 * The error a caller of this package gets for a failure of the addon: same code and message, with a hint where there is
 * one. `kvmDevice` is the device that the call was about.
 */
export function fromNative(error: unknown, details: MicroVMErrorDetails = {}, kvmDevice?: string): MicroVMError {
  if (error instanceof MicroVMError) return error;
  const code = codeOf(error) ?? 'ERR_NATIVE_FAILED';
  const message = error instanceof Error ? error.message : String(error);
  return new MicroVMError(code, message, { cause: error, hint: kvmHint(code, kvmDevice), ...details });
}

function codeOf(error: unknown): MicroVMErrorCode | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  // The addon names only codes of the list in errors.ts; napi's own failures are in CamelCase.
  return typeof error.code === 'string' && error.code.startsWith('ERR_') ? (error.code as MicroVMErrorCode) : undefined;
}
