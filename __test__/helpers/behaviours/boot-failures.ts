// Boots that do not succeed: each is told at once, with what the guest said, and nothing is left.

import test, { type ExecutionContext } from 'ava';

import { MicroVM, MicroVMError, type MicroVMOptions } from '../../../index.ts';
import { type AcceleratorName, PATIENCE_MS, privateRuntimeFolder } from '../guest.ts';
import { holdings } from '../leftovers.ts';

/** Declares the tests. */
export function bootFailureBehaviours(accelerator: AcceleratorName): void {
  privateRuntimeFolder();
  const fails = async (t: ExecutionContext, options: MicroVMOptions): Promise<MicroVMError> => {
    const error = await t.throwsAsync(MicroVM.create({ accelerator, bootTimeout: PATIENCE_MS, ...options }), {
      instanceOf: MicroVMError,
    });
    return error;
  };

  // What is loaded once per process (the addon, its spawner thread) is not left over.
  test.before(async () => {
    const vm = await MicroVM.create({ accelerator, bootTimeout: PATIENCE_MS });
    await vm.kill();
  });

  const leavesNothing = test.macro({
    exec: async (t, body: (t: ExecutionContext) => Promise<void>) => {
      const before = await holdings();
      await body(t);
      t.deepEqual(await holdings(), before);
    },
    title: (title) => `${title}, and nothing is left`,
  });

  test.serial('a guest whose agent never connects is an error with the console', leavesNothing, async (t) => {
    // Without an init to its taste the kernel runs the shell that we name, which says nothing on vsock.
    const error = await fails(t, { cmdline: 'rdinit=/bin/sleep -- 1000', bootTimeout: 8_000 });
    t.is(error.code, 'ERR_BOOT_TIMEOUT');
    t.truthy(error.hint);
  });

  test.serial('a kernel that panics on its way is told long before the timeout', leavesNothing, async (t) => {
    const started = performance.now();
    const error = await fails(t, { cmdline: 'rdinit=/no/such root=/dev/none rootwait=0', bootTimeout: PATIENCE_MS });
    t.is(error.code, 'ERR_GUEST_PANIC');
    t.regex(error.consoleTail ?? '', /Kernel panic/);
    t.true(performance.now() - started < PATIENCE_MS / 2);
  });

  test.serial('a signal that was aborted before starts nothing', leavesNothing, async (t) => {
    t.is((await fails(t, { signal: AbortSignal.abort() })).code, 'ERR_ABORTED');
  });

  for (const phase of ['machine', 'boot'] as const) {
    test.serial(`a signal aborted in the phase '${phase}' stops the machine`, leavesNothing, async (t) => {
      const abort = new AbortController();
      const error = await fails(t, {
        signal: abort.signal,
        onPhase: (name) => {
          if (name === phase) setImmediate(() => abort.abort(new Error('changed my mind')));
        },
      });
      t.is(error.code, 'ERR_ABORTED');
    });
  }

  test.serial('a rootfs that is larger than memory is refused before anything starts', leavesNothing, async (t) => {
    const error = await fails(t, { memory: '64MiB', rootfs: process.execPath.replace(/\/[^/]*$/, '') });
    t.is(error.code, 'ERR_INITRAMFS_TOO_LARGE');
  });
}
