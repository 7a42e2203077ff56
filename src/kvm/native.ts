// The way from this folder into the addon.

import { loadBinding } from '../native.ts';
import type { KvmBinding } from './binding.ts';

export { call, callAsync, invalid, unsigned } from '../native-call.ts';

/** The addon's KVM part; loaded by the first call. */
export function kvmBinding(): KvmBinding {
  return loadBinding();
}
