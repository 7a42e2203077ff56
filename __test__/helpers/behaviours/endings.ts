// How machines end, for every accelerator.

import test from 'ava';

import { MicroVMError, type MicroVMOptions } from '../../../index.ts';
import { type AcceleratorName, bootGuest, PATIENCE_MS } from '../guest.ts';

/** Declares the tests; each has a guest of its own. */
export function endingBehaviours(accelerator: AcceleratorName, options: MicroVMOptions = {}): void {
  test.serial('stop lets the guest switch itself off', async (t) => {
    const vm = await bootGuest(t, accelerator, options);
    t.deepEqual(await vm.stop({ timeout: PATIENCE_MS }), { reason: 'power-off' });
    t.deepEqual(await vm.exited, { reason: 'power-off' });
    t.deepEqual(await vm.stop(), { reason: 'power-off' }, 'stopping again does nothing');
    await t.throwsAsync(vm.exec('true'), { code: 'ERR_MACHINE_EXITED' });
  });

  test.serial(
    'stopping while a command runs whose owner stops it too, and while it is paused, lets it switch off',
    async (t) => {
      const vm = await bootGuest(t, accelerator, options);
      const owner = vm.exec('sleep', ['1000']).finally(() => vm.stop());
      const waiting = t.throwsAsync(vm.exec('sleep', ['1000']), { code: 'ERR_MACHINE_EXITED' });
      // One that has been answered shows that the others were sent.
      await vm.exec('true');
      await vm.pause();
      const rejected = t.throwsAsync(owner, { code: 'ERR_MACHINE_EXITED' });
      t.deepEqual(await Promise.all([vm.stop({ timeout: PATIENCE_MS }), vm.stop()]), [
        { reason: 'power-off' },
        { reason: 'power-off' },
      ]);
      await Promise.all([rejected, waiting]);
    },
  );

  test.serial('kill ends the machine at once, and twice is once', async (t) => {
    const vm = await bootGuest(t, accelerator, options);
    const [first, second] = await Promise.all([vm.kill(), vm.kill()]);
    t.is(first.reason, 'stopped');
    t.is(second.reason, 'stopped');
  });

  test.serial('a machine that has ended is neither paused nor resumed, and the error tells its end', async (t) => {
    const vm = await bootGuest(t, accelerator, options);
    await vm.kill();
    for (const work of [() => vm.pause(), () => vm.resume(), () => vm.metrics()]) {
      await t.throwsAsync(work, { instanceOf: MicroVMError, code: 'ERR_MACHINE_EXITED', message: /was stopped/ });
    }
  });

  test.serial('a guest that powers off during a command fails it with the reason', async (t) => {
    const vm = await bootGuest(t, accelerator, options);
    const error = await t.throwsAsync(vm.exec('sh', ['-c', 'poweroff -f; sleep 60']), { instanceOf: MicroVMError });
    t.is(error.code, 'ERR_MACHINE_EXITED');
    t.is((await vm.exited).reason, 'power-off');
  });

  test.serial('a guest that reboots has reset itself', async (t) => {
    const vm = await bootGuest(t, accelerator, options);
    await t.throwsAsync(vm.exec('sh', ['-c', 'reboot -f; sleep 60']), { code: 'ERR_MACHINE_EXITED' });
    t.is((await vm.exited).reason, 'reset');
  });

  test.serial('a kernel panic ends the machine, and the error of all that waits for it shows it', async (t) => {
    const vm = await bootGuest(t, accelerator, options);
    // Somebody holds it open, and writes nothing.
    await vm.exec('mkfifo /tmp/way; exec 3<>/tmp/way; sleep 1000 &');
    const watcher = vm.fs.watch('/tmp');
    await watcher.ready;
    const waiting = [vm.fs.readFile('/tmp/way'), watcher.next()];
    for (const work of waiting) work.catch(() => {});
    const error = await t.throwsAsync(vm.exec('sh', ['-c', 'echo c > /proc/sysrq-trigger; sleep 60']), {
      instanceOf: MicroVMError,
    });
    t.is(error.code, 'ERR_GUEST_PANIC');
    t.regex(error.consoleTail ?? '', /Kernel panic/);
    const exit = await vm.exited;
    t.like(exit, { reason: 'panic', detail: 'sysrq triggered crash' });
    t.regex(exit.consoleTail ?? '', /Kernel panic - not syncing/);
    for (const work of [...waiting, vm.fs.stat('/')]) {
      const failure = await t.throwsAsync<MicroVMError>(work, { instanceOf: MicroVMError, code: 'ERR_GUEST_PANIC' });
      t.regex(failure?.consoleTail ?? '', /Kernel panic/);
    }
  });

  test.serial('a guest that is to end when it runs out of memory says so', async (t) => {
    const vm = await bootGuest(t, accelerator, { ...options, memory: '128MiB' });
    await vm.exec('echo 1 > /proc/sys/vm/panic_on_oom');
    await t.throwsAsync(vm.exec('tail', ['/dev/zero']), { code: 'ERR_GUEST_PANIC' });
    const exit = await vm.exited;
    t.like(exit, { reason: 'panic' });
    t.regex(exit.detail ?? '', /^Out of memory/i);
    t.regex(exit.consoleTail ?? '', /panic_on_oom/);
  });
}
