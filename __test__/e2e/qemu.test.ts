// What only the tcg accelerator can meet: QEMU itself missing, refusing or dying.

import { execFileSync } from 'node:child_process';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';

import { MicroVM, MicroVMError } from '../../index.ts';
import { cacheFolder } from '../../src/cache/folder.ts';
import { bootGuest, privateRuntimeFolder } from '../helpers/guest.ts';
import { children, holdings } from '../helpers/leftovers.ts';
import { temporaryFolder } from '../helpers/temporary-folder.ts';

privateRuntimeFolder();

test.afterEach.always(() => {
  delete process.env['MICROVM_QEMU'];
});

test.serial('QEMU that is killed is a machine that failed, and a command under way is told', async (t) => {
  const vm = await bootGuest(t, 'tcg');
  const running = t.throwsAsync(vm.exec('sleep', ['1000']), { instanceOf: MicroVMError });
  const waiting = t.throwsAsync(vm.exec('sleep', ['1000']), { code: 'ERR_MACHINE_FAILED' });
  const qemu = (await children()).find(({ name }) => name.startsWith('qemu'));
  process.kill(qemu?.pid ?? 0, 'SIGKILL');
  t.is((await running).code, 'ERR_MACHINE_FAILED');
  await waiting;
  t.like(await vm.exited, { reason: 'failed', detail: 'QEMU ended with signal 9' });
  t.is((await vm.stop()).reason, 'failed');
});

test.serial('QEMU that is killed while the guest boots is told at once, and nothing is left', async (t) => {
  const before = await holdings();
  const error = await t.throwsAsync(
    MicroVM.create({
      accelerator: 'tcg',
      onPhase: async (phase) => {
        if (phase !== 'boot') return;
        for (const { name, pid } of await children()) if (name.startsWith('qemu')) process.kill(pid, 'SIGKILL');
      },
    }),
    { instanceOf: MicroVMError },
  );
  t.is(error.code, 'ERR_MACHINE_FAILED');
  t.regex(error.message, /while it booted: QEMU ended with signal 9/);
  t.deepEqual(await holdings(), before);
});

test.serial('QEMU that is not installed is named in the error, and nothing is left', async (t) => {
  const before = await holdings();
  process.env['MICROVM_QEMU'] = '/no/such/qemu';
  const error = await t.throwsAsync(MicroVM.create({ accelerator: 'tcg' }), { instanceOf: MicroVMError });
  t.is(error.code, 'ERR_QEMU_MISSING');
  t.regex(error.hint ?? '', /apt-get install/);
  t.deepEqual(await holdings(), before);
});

test.serial('a program that is not QEMU fails with its own words, and nothing is left', async (t) => {
  const before = await holdings();
  process.env['MICROVM_QEMU'] = '/bin/ls';
  const error = await t.throwsAsync(MicroVM.create({ accelerator: 'tcg' }), { instanceOf: MicroVMError });
  t.is(error.code, 'ERR_QEMU_FAILED');
  t.regex(error.message, /exit code \d: \/bin\/ls: /);
  t.deepEqual(await holdings(), before);
});

// Each release of QEMU tells of a processor that can do more, and kernels choose their code by that.
test.serial('the newest QEMU that there is boots the stock kernel too', async (t) => {
  const program = process.env['MICROVM_TEST_QEMU'] ?? 'qemu-system-x86_64';
  process.env['MICROVM_QEMU'] = program;
  t.log(execFileSync(program, ['--version'], { encoding: 'utf8' }).split('\n')[0] ?? '');
  const vm = await bootGuest(t, 'tcg');
  t.is((await vm.exec('uname', ['-s'])).stdout, 'Linux\n');
});

test.serial('huge pages are not for tcg, which is told before anything is looked for or built', async (t) => {
  const phases: string[] = [];
  const created = MicroVM.create({ accelerator: 'tcg', hugePages: true, onPhase: (phase) => phases.push(phase) });
  await t.throwsAsync(created, { code: 'ERR_NOT_SUPPORTED' });
  t.deepEqual(phases, ['choose']);
});

for (const [what, script] of [
  ['that never says a word', 'exec sleep 1000'],
  ['whose child keeps its descriptors', 'sleep 20 & exec sleep 1000'],
] as const) {
  test.serial(`QEMU ${what} runs into bootTimeout, and nothing is left`, async (t) => {
    const program = join(await temporaryFolder(t), 'qemu');
    await writeFile(program, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    process.env['MICROVM_QEMU'] = program;
    const before = await holdings();
    const error = await t.throwsAsync(MicroVM.create({ accelerator: 'tcg', bootTimeout: 500 }), {
      instanceOf: MicroVMError,
    });
    t.is(error.code, 'ERR_BOOT_TIMEOUT');
    t.regex(error.message, /500 ms/);
    t.truthy(error.hint);
    t.deepEqual(await holdings(), before);
  });
}

test.serial(
  'the kernel and the userland of a machine that is being made are held, and let go when that fails',
  async (t) => {
    process.env['MICROVM_QEMU'] = '/bin/false';
    const marks = async (): Promise<string[]> =>
      (await readdir(join(cacheFolder(), 'holds'))).filter((mark) => mark.includes(`@${process.pid}-`));
    let held: Promise<string[]> | undefined;
    const onPhase = (phase: string): void => {
      if (phase === 'initramfs') held = marks();
    };
    await t.throwsAsync(MicroVM.create({ accelerator: 'tcg', onPhase }), { code: 'ERR_QEMU_FAILED' });
    const kinds = (await held)?.map((mark) => /^guest%2F[a-z]+/.exec(mark)?.[0]).toSorted();
    t.deepEqual(kinds, ['guest%2Fdebian', 'guest%2Fuserland']);
    t.deepEqual(await marks(), []);
  },
);

test.serial('a signal aborted while QEMU starts is ERR_ABORTED, and nothing is left', async (t) => {
  const program = join(await temporaryFolder(t), 'qemu');
  await writeFile(program, '#!/bin/sh\nexec sleep 1000\n', { mode: 0o755 });
  process.env['MICROVM_QEMU'] = program;
  const before = await holdings();
  const error = await t.throwsAsync(
    MicroVM.create({ accelerator: 'tcg', bootTimeout: 60_000, signal: AbortSignal.timeout(2_000) }),
    { instanceOf: MicroVMError },
  );
  t.is(error.code, 'ERR_ABORTED');
  t.deepEqual(await holdings(), before);
});
