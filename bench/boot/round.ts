// One measured boot, the same way for every virtual machine monitor: as a process of its own (`node round.ts NAME`),
// so that no round finds memory or compiled code that an earlier one left. Prints its figures as JSON.

import { fileURLToPath } from 'node:url';
import type { Accelerator } from '../../src/accelerators/accelerator.ts';
import { createMachine } from '../../src/vm/create.ts';
import { exec } from '../../src/vm/exec.ts';
import { memoryBeyondGuest } from './memory.ts';
import { lastPid, qemuMicrovm } from './qemu-microvm.ts';

export interface Round {
  /** Milliseconds from `create()` to the first line that PID 1 prints. */
  readonly firstLineMs: number;
  /** Milliseconds from `create()` to the answer of the first command. */
  readonly firstExecMs: number;
  /** Bytes that the monitor costs beyond guest RAM, once that command was answered. */
  readonly memoryBytes: number;
}

/** What is measured: our own accelerator as `create()` takes it, and another monitor in its place. */
export const MONITORS: Readonly<Record<string, Accelerator | undefined>> = {
  '@hybrid/microvm': undefined,
  'QEMU -M microvm': qemuMicrovm,
};

/** The agent says this first. */
const FIRST_LINE = 'microvm-agent: ';
const BOOT_TIMEOUT_MS = 300_000;

async function bootOnce(monitor: Accelerator | undefined): Promise<Round> {
  globalThis.gc?.();
  // Ours lives in this process: what it costs is what this process grows by. QEMU's own process is all cost.
  const before = monitor ? 0 : memoryBeyondGuest('self');
  let text = '';
  let firstLineMs = Number.NaN;
  const started = performance.now();
  const vm = await createMachine(
    {
      accelerator: 'kvm',
      bootTimeout: BOOT_TIMEOUT_MS,
      onConsole(chunk: Uint8Array) {
        if (!Number.isNaN(firstLineMs)) return;
        text += Buffer.from(chunk).toString('latin1');
        if (text.includes(FIRST_LINE)) firstLineMs = performance.now() - started;
      },
    },
    monitor && (async () => ({ accelerator: monitor, reason: 'measured' })),
  );
  try {
    await exec(vm, 'true', [], {});
    const firstExecMs = performance.now() - started;
    globalThis.gc?.();
    const memoryBytes = memoryBeyondGuest(monitor ? lastPid() : 'self') - before;
    return { firstLineMs, firstExecMs, memoryBytes };
  } finally {
    await vm.kill();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const name = process.argv[2] ?? '';
  if (!(name in MONITORS)) throw new Error(`There is no monitor ${JSON.stringify(name)}`);
  console.log(JSON.stringify(await bootOnce(MONITORS[name])));
}
