import { setImmediate } from 'node:timers/promises';
import { MicroVMError } from '../../src/ring3/index.ts';
import { CODE, DATA, program, ring3Test } from '../helpers/ring3.ts';

const code = (code: string, message?: RegExp) => ({ instanceOf: MicroVMError, code, ...(message && { message }) });
/** syscall */
const SYSCALL = [0x0f, 0x05];
/** jmp to itself */
const ENDLESS = [0xeb, 0xfe];

ring3Test('a system call tells its registers, and the program goes on with what it is given', async (t) => {
  // syscall; inc rax; syscall
  const { space, context } = await program(t, ...SYSCALL, 0x48, 0xff, 0xc0, ...SYSCALL);
  const first = await context.switch(space, { rip: CODE, rax: 39n, rbx: 2n ** 64n - 1n, rflags: 0x3000n });
  t.is(first.reason, 'system-call');
  const { rax, rbx, rcx, rip, rflags } = first.registers;
  t.deepEqual([rax, rbx, rcx, rip], [39n, 2n ** 64n - 1n, CODE + 2n, CODE + 2n]);
  t.is(rflags & 0x3000n, 0n, 'a program gets no I/O privilege');
  const second = await context.switch(space, { ...first.registers, rax: 100n }, { restore: 'partial' });
  t.deepEqual([second.reason, second.registers.rax], ['system-call', 101n]);
});

ring3Test('faults tell their vector, error code, address and access', async (t) => {
  // mov [rdi], al
  const { space, context } = await program(t, 0x88, 0x07);
  const fault = { reason: 'fault', vector: 14, errorCode: 6, address: 0x1234_5678n, access: 'write' };
  t.like(await context.switch(space, { rip: CODE, rdi: 0x1234_5678n }), fault);
  t.like(await context.switch(space, { rip: DATA }), { reason: 'fault', vector: 14, access: 'execute' });
  const noncanonical = { reason: 'fault', vector: 13, address: undefined, access: undefined };
  t.like(await context.switch(space, { rip: 2n ** 63n }), noncanonical);
});

ring3Test('the event loop goes on while a program runs, and an interrupt ends it', async (t) => {
  const { space, context, start } = await program(t, ...ENDLESS);
  const running = context.switch(space, start);
  let turns = 0;
  while (turns < 20) {
    await setImmediate();
    turns++;
  }
  await t.throwsAsync(context.switch(space, start), code('ERR_RING3_BUSY'));
  context.interrupt();
  const exit = await running;
  t.deepEqual([exit.reason, exit.registers.rip], ['interrupted', CODE]);
});

ring3Test('an interrupt before a switch ends it at once, and only that one', async (t) => {
  const { space, context, start } = await program(t, ...SYSCALL);
  context.interrupt();
  context.interrupt();
  t.is((await context.switch(space, start)).reason, 'interrupted');
  t.is((await context.switch(space, start)).reason, 'system-call');
});

ring3Test('a timeout ends a switch', async (t) => {
  const { space, context, start } = await program(t, ...ENDLESS);
  t.is((await context.switch(space, start, { timeout: 20 })).reason, 'timed-out');
  t.is((await context.switch(space, start, { timeout: 0 })).reason, 'timed-out');
});

ring3Test('an aborted signal ends the switch, and never the one after', async (t) => {
  const { space, context, start } = await program(t, ...ENDLESS);
  const already = await context.switch(space, start, { signal: AbortSignal.abort() });
  t.deepEqual([already.reason, already.registers.rip], ['interrupted', CODE]);
  t.is((await context.switch(space, start, { signal: AbortSignal.timeout(20) })).reason, 'interrupted');

  const quick = await program(t, ...SYSCALL);
  for (let round = 0; round < 50; round++) {
    const abort = new AbortController();
    const racing = quick.context.switch(quick.space, quick.start, { signal: abort.signal });
    if (round % 2 === 0) await setImmediate();
    abort.abort();
    await racing;
    t.is((await quick.context.switch(quick.space, quick.start)).reason, 'system-call');
  }
});

ring3Test('segment bases and the extended state are kept and can be set', async (t) => {
  // mov rax, fs:[0]; movq xmm0, rax; syscall
  const { memory, space, context, start } = await program(
    t,
    0x64,
    0x48,
    0x8b,
    0x04,
    0x25,
    0,
    0,
    0,
    0,
    0x66,
    0x48,
    0x0f,
    0x6e,
    0xc0,
    ...SYSCALL,
  );
  memory.write(4096, Uint8Array.of(9));
  t.deepEqual(context.segmentBases(), { fs: 0n, gs: 0n });
  t.is(context.extendedState().length, 0, 'as after a reset');
  context.setSegmentBases({ fs: DATA, gs: 1n });
  t.is((await context.switch(space, start)).registers.rax, 9n);
  t.deepEqual(context.segmentBases(), { fs: DATA, gs: 1n });
  const state = context.extendedState();
  t.is(state[160], 9, 'XMM0 is at byte 160 of the layout');
  context.setExtendedState(state);
  t.deepEqual(context.extendedState(), state);
  t.throws(() => context.setExtendedState(Uint8Array.of(1)), code('ERR_INVALID_OPTIONS', /1 bytes/));
  t.throws(() => context.setSegmentBases({ fs: 2n ** 63n, gs: 0n }), code('ERR_RING3_RANGE'));
});

ring3Test('wrong registers, spaces and options are refused before anything runs', async (t) => {
  const { space, context, start } = await program(t, ...SYSCALL);
  const refused = (registers: object, message: RegExp) =>
    t.throwsAsync(context.switch(space, registers), code('ERR_INVALID_OPTIONS', message));
  await refused({ rax: 1 }, /registers\.rax must be a bigint/);
  await refused({ rax: -1n }, /registers\.rax/);
  await refused({ rax: 2n ** 64n }, /registers\.rax/);
  await refused({ rxx: 1n }, /no register rxx; did you mean rax\?/);
  await refused(null as unknown as object, /object of bigints/);
  await t.throwsAsync(context.switch({} as typeof space, start), code('ERR_INVALID_OPTIONS', /AddressSpace/));
  const wrong = (options: object, message: RegExp) =>
    t.throwsAsync(context.switch(space, start, options), code('ERR_INVALID_OPTIONS', message));
  await wrong({ restore: 'none' }, /restore/);
  await wrong({ timeout: -1 }, /timeout/);
  await wrong({ signal: {} }, /AbortSignal/);
});

ring3Test('a closed context refuses everything, and closing it ends its switch', async (t) => {
  const { platform, space, start } = await program(t, ...ENDLESS);
  const context = platform.newContext();
  const running = context.switch(space, start);
  await context.close();
  t.is((await running).reason, 'interrupted');
  await context.close();
  await t.throwsAsync(context.switch(space, start), code('ERR_RING3_CLOSED', /context is closed/));
  t.throws(() => context.segmentBases(), code('ERR_RING3_CLOSED'));
});

ring3Test('contexts of one space run at the same time', async (t) => {
  // 1: lock inc qword [rdi]; cmp qword [rdi], 2; jb 1b: waits for the other one
  const wait = [0xf0, 0x48, 0xff, 0x07, 0x48, 0x83, 0x3f, 0x02, 0x72, 0xfa, ...SYSCALL];
  const { platform, space, context, start } = await program(t, ...wait);
  const other = platform.newContext();
  const exits = await Promise.all([context.switch(space, start), other.switch(space, start)]);
  t.deepEqual(
    exits.map(({ reason }) => reason),
    ['system-call', 'system-call'],
  );
  await other.close();
});
