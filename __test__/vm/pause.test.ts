// What a pause does beside the accelerator's part, without a machine.

import test from 'ava';

import type { MachineExit } from '../../src/accelerators/accelerator.ts';
import { MicroVMError } from '../../src/errors.ts';
import { Patience } from '../../src/host/patience.ts';
import type { BootedMachine } from '../../src/vm/create.ts';
import { pause, resume } from '../../src/vm/pause.ts';

interface Machine {
  readonly vm: BootedMachine;
  /** Whether limits of time stand still. */
  readonly isHeld: () => boolean;
  readonly end: (exit: MachineExit) => void;
}

/** One whose accelerator does so. */
function machine(answer: () => Promise<void>): Machine {
  let isHeld = false;
  const patience = new (class extends Patience {
    override hold(): void {
      isHeld = true;
    }
    override release(): void {
      isHeld = false;
    }
  })();
  const ended = new AbortController();
  let resolve: (exit: MachineExit) => void = () => {};
  const exited = new Promise<MachineExit>((done) => (resolve = done));
  const vm = { machine: { pause: answer, resume: answer }, patience, exited, ended: ended.signal };
  return {
    vm: vm as unknown as BootedMachine,
    isHeld: () => isHeld,
    end(exit) {
      ended.abort(exit);
      resolve(exit);
    },
  };
}

const refuse = (): Promise<void> => Promise.reject(new MicroVMError('ERR_QEMU_FAILED', 'The connection is gone'));

test('limits of time stand still from the pause to the end of it', async (t) => {
  const { vm, isHeld } = machine(async () => {});
  await pause(vm);
  t.true(isHeld());
  await resume(vm);
  t.false(isHeld());
});

test('a machine that has ended tells so, with the last lines of its console', async (t) => {
  const { vm, isHeld, end } = machine(refuse);
  end({ reason: 'panic', detail: 'oops', consoleTail: 'Kernel panic' });
  for (const work of [pause, resume]) {
    const error = await t.throwsAsync(work(vm), { instanceOf: MicroVMError, code: 'ERR_GUEST_PANIC' });
    t.regex(error?.message ?? '', /panicked before it could (?:be paused|run on): oops$/);
    t.is(error?.consoleTail, 'Kernel panic');
  }
  t.false(isHeld(), 'nobody is left waiting for ever');
});

test('one that is ending is waited for', async (t) => {
  const { vm, end } = machine(refuse);
  const pausing = pause(vm);
  setImmediate(() => end({ reason: 'power-off' }));
  await t.throwsAsync(pausing, {
    code: 'ERR_MACHINE_EXITED',
    message: /switched itself off before it could be paused/,
  });
});
