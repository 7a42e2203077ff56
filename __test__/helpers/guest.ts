// Guests for the end-to-end tests.

import type { ExecutionContext } from 'ava';

import { MicroVM, type MicroVMOptions } from '../../index.ts';

export type AcceleratorName = 'kvm' | 'tcg';

/** How long a guest may take to boot here: in the lab every layer is emulated, on a machine that may be busy. */
export const PATIENCE_MS = 120_000;

/** Boots a guest that is gone when the test ends, however it ends. */
export async function bootGuest(
  t: ExecutionContext,
  accelerator: AcceleratorName,
  options: MicroVMOptions = {},
): Promise<MicroVM> {
  const vm = await MicroVM.create({ accelerator, bootTimeout: PATIENCE_MS, ...options });
  t.teardown(() => vm.kill());
  return vm;
}
