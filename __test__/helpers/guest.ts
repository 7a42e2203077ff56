// Guests for the end-to-end tests.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import type { ExecutionContext } from 'ava';

import { type KernelFiles, MicroVM, type MicroVMOptions } from '../../index.ts';
import { cacheFolder } from '../../src/cache/folder.ts';

export type AcceleratorName = 'kvm' | 'tcg';

/** How long a guest may take to boot here: in the lab every layer is emulated, on a machine that may be busy. */
export const PATIENCE_MS = 120_000;

/** A kernel of Linux 6.11 or newer, which the set-up's step `bench-kernel` fetches. */
export const NEWER_KERNEL: KernelFiles = {
  image: path.join(cacheFolder(), 'bench/current/vmlinuz'),
  modules: path.join(cacheFolder(), 'bench/current/modules'),
};

/** Gives this process, and those that it starts, a folder for runtime files that no other test sees. */
export function privateRuntimeFolder(): void {
  const folder = mkdtempSync(path.join(tmpdir(), 'microvm-test-'));
  process.env['XDG_RUNTIME_DIR'] = folder;
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
}

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
