// The accelerator's own face, below MicroVM: machines that are ended while they boot.

import test, { type ExecutionContext } from 'ava';

import { GUEST_CID, type RunningMachine } from '../../../src/accelerators/accelerator.ts';
import { kvm } from '../../../src/accelerators/kvm.ts';
import { tcg } from '../../../src/accelerators/qemu/tcg.ts';
import { normalize } from '../../../src/config/normalize.ts';
import { MicroVMError } from '../../../src/errors.ts';
import { buildInitramfs } from '../../../src/guest/initramfs.ts';
import { findKernel } from '../../../src/guest/kernel.ts';
import { createRuntimeFolder } from '../../../src/host/runtime-folder.ts';
import { agentPath } from '../../../src/native.ts';
import { kernelCommandLine } from '../../../src/vm/kernel-command-line.ts';
import type { AcceleratorName } from '../guest.ts';
import { holdings } from '../leftovers.ts';

/** Declares the tests. */
export function acceleratorBehaviours(name: AcceleratorName): void {
  const accelerator = name === 'kvm' ? kvm : tcg;

  /** A machine that has just been started; `use` ends it. */
  const whileBooting = async (use: (machine: RunningMachine) => Promise<void>, signal?: AbortSignal): Promise<void> => {
    const spec = normalize();
    const kernel = await findKernel(undefined);
    const { transport } = accelerator;
    const { rootfs, memoryBytes } = spec;
    const initramfs = await buildInitramfs({ kernel, rootfs, transport, memoryBytes, agent: agentPath() });
    const folder = await createRuntimeFolder();
    try {
      const machine = await accelerator.start(
        {
          ...spec,
          kernel,
          initramfs: initramfs.path,
          commandLine: kernelCommandLine(spec, accelerator),
          guestCid: GUEST_CID,
          vsockSocket: folder.socketPath('vsock'),
          deviceSocket: folder.socketPath('device'),
          shares: [],
        },
        signal,
      );
      machine.console.resume();
      await use(machine);
    } finally {
      await folder.remove();
      await initramfs.release();
    }
  };

  const leavesNothing = test.macro({
    exec: async (t, use: (t: ExecutionContext) => Promise<void>) => {
      // What the first machine loads stays for the process.
      await whileBooting(async (machine) => void (await machine.kill()));
      const before = await holdings();
      await use(t);
      t.deepEqual(await holdings(), before);
    },
    title: (title) => `${title}, and nothing is left`,
  });

  test.serial('a machine killed while it boots was stopped', leavesNothing, async (t) => {
    await whileBooting(async (machine) => {
      t.deepEqual(await machine.kill(), { reason: 'stopped' });
      t.deepEqual(await machine.kill(), { reason: 'stopped' });
      t.deepEqual(await machine.exited, { reason: 'stopped' });
    });
  });

  test.serial('a machine killed without waiting ends the same way', leavesNothing, async (t) => {
    await whileBooting(async (machine) => {
      machine.killSync();
      t.deepEqual(await machine.exited, { reason: 'stopped' });
    });
  });

  test.serial('a machine killed while it is paused was stopped', leavesNothing, async (t) => {
    await whileBooting(async (machine) => {
      await machine.pause();
      t.deepEqual(await machine.kill(), { reason: 'stopped' });
    });
  });

  test.serial('a signal that was aborted before starts nothing', leavesNothing, async (t) => {
    const reason = new Error('changed my mind');
    const started = whileBooting(() => Promise.resolve(), AbortSignal.abort(reason));
    t.is(await t.throwsAsync(started), reason);
  });

  test.serial('what a machine that has ended is asked for is refused', async (t) => {
    await whileBooting(async (machine) => {
      await machine.kill();
      await t.throwsAsync(machine.pause(), { instanceOf: MicroVMError });
      await t.throwsAsync(machine.resume(), { instanceOf: MicroVMError });
      await t.throwsAsync(machine.powerButton(), { instanceOf: MicroVMError });
      t.notThrows(() => machine.killSync());
    });
  });
}
