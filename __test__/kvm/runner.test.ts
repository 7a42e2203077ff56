import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { MicroVMError } from '../../src/kvm/index.ts';
import { guest, testWithKvm } from '../helpers/real-mode-guest.ts';

const EXAMPLE = new URL('../../examples/real-mode.ts', import.meta.url);
/** jmp to itself */
const ENDLESS = [0xeb, 0xfe];
const code = (code: string) => ({ instanceOf: MicroVMError, code });

testWithKvm('the example prints through a port', async (t) => {
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [fileURLToPath(EXAMPLE)]);
  t.is(stdout, 'Hello from real mode\n');
  t.is(stderr, '');
});

test('docs/kvm.md shows the example as it is', async (t) => {
  const docs = await readFile(new URL('../../docs/kvm.md', import.meta.url), 'utf8');
  const example = await readFile(EXAMPLE, 'utf8');
  const shown = /```ts\n(.*?)```/s.exec(docs)?.[1];
  t.is(shown, example.replace("'../src/kvm/index.ts'", "'@hybrid/microvm/kvm'"));
});

testWithKvm('port reads are answered by the exit or with the next run', async (t) => {
  // in al, 0x42; mov bl, al; mov dx, 0x1234; in ax, dx; hlt
  const { runner } = guest(t, 0xe4, 0x42, 0x88, 0xc3, 0xba, 0x34, 0x12, 0xed, 0xf4);
  const first = await runner.run();
  t.like(first, { reason: 'io-in', port: 0x42, size: 1, count: 1 });
  if (first.reason === 'io-in') first.answer(Uint8Array.of(0x7e));
  t.like(await runner.run(), { reason: 'io-in', port: 0x1234, size: 2 });
  t.deepEqual(await runner.run({ answer: Uint8Array.of(0xef, 0xbe) }), { reason: 'hlt' });
  const { rax, rbx } = runner.getRegs();
  t.is(rbx & 0xffn, 0x7en);
  t.is(rax & 0xffffn, 0xbeefn);
});

testWithKvm('an answer of the wrong length, to the wrong exit or too late is refused', async (t) => {
  // in al, 0x42; out 0x80, al; hlt
  const { runner } = guest(t, 0xe4, 0x42, 0xe6, 0x80, 0xf4);
  await t.throwsAsync(runner.run({ answer: Uint8Array.of(1) }), code('ERR_KVM_INVALID_ANSWER'));
  const exit = await runner.run();
  if (exit.reason !== 'io-in') return t.fail(exit.reason);
  t.throws(() => exit.answer(Uint8Array.of(1, 2)), { ...code('ERR_KVM_INVALID_ANSWER'), message: /2 bytes.*reads 1/ });
  t.throws(() => exit.answer('x' as unknown as Uint8Array), code('ERR_INVALID_OPTIONS'));
  exit.answer(Uint8Array.of(3));
  t.like(await runner.run(), { reason: 'io-out', port: 0x80, data: Uint8Array.of(3) });
  t.throws(() => exit.answer(Uint8Array.of(4)), code('ERR_KVM_INVALID_ANSWER'));
  await t.throwsAsync(runner.run({ answer: Uint8Array.of(1) }), code('ERR_KVM_INVALID_ANSWER'));
});

testWithKvm('string instructions move several bytes', async (t) => {
  // mov di, 0x1100; mov cx, 5; mov dx, 0x80; rep insb; hlt
  const { memory, runner } = guest(t, 0xbf, 0, 0x11, 0xb9, 5, 0, 0xba, 0x80, 0, 0xf3, 0x6c, 0xf4);
  let next = 1;
  for (;;) {
    const exit = await runner.run();
    if (exit.reason === 'hlt') break;
    if (exit.reason !== 'io-in') return t.fail(exit.reason);
    exit.answer(Uint8Array.from({ length: exit.size * exit.count }, () => next++));
  }
  t.deepEqual(memory.read(0x100, 6), Uint8Array.of(1, 2, 3, 4, 5, 0));
});

testWithKvm('memory that is not there is written and read by exits', async (t) => {
  // mov word [0x8000], 0xcafe; mov al, [0x8003]; hlt
  const { runner } = guest(t, 0xc7, 0x06, 0x00, 0x80, 0xfe, 0xca, 0xa0, 0x03, 0x80, 0xf4);
  t.deepEqual(await runner.run(), { reason: 'mmio-write', address: 0x8000n, data: Uint8Array.of(0xfe, 0xca) });
  const read = await runner.run();
  t.like(read, { reason: 'mmio-read', address: 0x8003n, size: 1 });
  if (read.reason === 'mmio-read') read.answer(Uint8Array.of(0x5a));
  t.is((await runner.run()).reason, 'hlt');
  t.is(runner.getRegs().rax & 0xffn, 0x5an);
});

testWithKvm('a triple fault is a shutdown', async (t) => {
  // ud2, with an interrupt table of length 0
  const { runner } = guest(t, 0x0f, 0x0b);
  runner.modifySregs((sregs) => {
    sregs.idt = { base: 0n, limit: 0 };
  });
  t.deepEqual(await runner.run(), { reason: 'shutdown' });
});

testWithKvm('code that KVM cannot fetch is an internal error with its suberror', async (t) => {
  // jmp 0x8000, where no memory is
  const { runner } = guest(t, 0xe9, 0xfd, 0x6f);
  const exit = await runner.run();
  if (exit.reason !== 'internal-error') return t.fail(exit.reason);
  t.is(exit.suberror, 1);
  t.true(exit.data.every((word) => typeof word === 'bigint'));
  t.is(runner.getRegs().rip, 0x8000n);
});

testWithKvm('a completed exit has reached the registers', async (t) => {
  // in al, 0x42; hlt
  const { runner } = guest(t, 0xe4, 0x42, 0xf4);
  const exit = await runner.run();
  if (exit.reason === 'io-in') exit.answer(Uint8Array.of(0x99));
  t.deepEqual(runner.completeExit(), { reason: 'interrupted' });
  t.like(runner.getRegs(), { rip: 0x1002n });
  t.is((await runner.run()).reason, 'hlt');
});

testWithKvm('the event loop goes on while a guest runs, and interrupt ends the run', async (t) => {
  const { runner } = guest(t, ...ENDLESS);
  const run = runner.run();
  for (let turn = 0; turn < 10; turn++) await setImmediate();
  await t.throwsAsync(runner.run(), { ...code('ERR_KVM_BUSY'), message: /running already/ });
  t.throws(() => runner.getRegs(), code('ERR_KVM_BUSY'));
  t.throws(() => runner.completeExit(), code('ERR_KVM_BUSY'));
  runner.interrupt();
  t.deepEqual(await run, { reason: 'interrupted' });
  t.is(runner.getRegs().rip, 0x1000n);
});

testWithKvm('an interrupt before a run ends that run, once', async (t) => {
  const { runner } = guest(t, 0xf4);
  runner.interrupt();
  runner.interrupt();
  t.is((await runner.run()).reason, 'interrupted');
  t.is((await runner.run()).reason, 'hlt');
});

testWithKvm('a signal ends its own run only', async (t) => {
  // out 0x80, al; jmp to itself
  const { runner } = guest(t, 0xe6, 0x80, ...ENDLESS);
  t.deepEqual(await runner.run({ signal: AbortSignal.abort() }), { reason: 'interrupted' });

  const early = new AbortController();
  const first = runner.run({ signal: early.signal });
  early.abort();
  // Either may win; an exit that came first is not lost, and the request does not outlive the run.
  if ((await first).reason === 'interrupted') t.is((await runner.run()).reason, 'io-out');

  const late = new AbortController();
  const second = runner.run({ signal: late.signal });
  await setImmediate();
  late.abort();
  t.is((await second).reason, 'interrupted');
});

testWithKvm('a signal that comes after the exit leaves the next run alone', async (t) => {
  const { runner } = guest(t, 0xf4, 0xf4, 0xf4);
  for (let round = 0; round < 3; round++) {
    const controller = new AbortController();
    const exit = await runner.run({ signal: controller.signal });
    controller.abort();
    t.is(exit.reason, 'hlt');
  }
});

testWithKvm('two vCPUs of a machine run at the same time', async (t) => {
  const { vm, runner } = guest(t, ...ENDLESS);
  const vcpu = vm.createVcpu(1);
  // Without an interrupt controller every vCPU is a boot processor.
  vcpu.setSregs(runner.getSregs());
  vcpu.setRegs(runner.getRegs());
  const other = vcpu.createRunner();
  const runs = [runner.run(), other.run()];
  await setImmediate();
  other.interrupt();
  t.is((await runs[1])?.reason, 'interrupted');
  t.throws(() => runner.getRegs(), code('ERR_KVM_BUSY'));
  runner.interrupt();
  t.is((await runs[0])?.reason, 'interrupted');
  await other.close();
});

testWithKvm('closing ends the run under way, and later calls say closed', async (t) => {
  const { vcpu, runner } = guest(t, ...ENDLESS);
  const run = runner.run();
  await runner[Symbol.asyncDispose]();
  t.deepEqual(await run, { reason: 'interrupted' });
  await t.throwsAsync(runner.run(), code('ERR_KVM_CLOSED'));
  t.throws(() => runner.getRegs(), code('ERR_KVM_CLOSED'));
  t.throws(() => vcpu.createRunner(), code('ERR_KVM_CLOSED'));
  runner.interrupt();
});

testWithKvm('a vCPU has one runner', (t) => {
  const { vcpu } = guest(t, 0xf4);
  t.throws(() => vcpu.createRunner(), { ...code('ERR_KVM_BUSY'), message: /a runner already/ });
});
