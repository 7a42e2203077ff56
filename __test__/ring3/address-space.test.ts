import { MicroVMError } from '../../src/ring3/index.ts';
import { CODE, DATA, program, ring3Test } from '../helpers/ring3.ts';

const code = (code: string, message?: RegExp) => ({ instanceOf: MicroVMError, code, ...(message && { message }) });
/** mov rax, [rdi]; syscall */
const READ = [0x48, 0x8b, 0x07, 0x0f, 0x05];
const READ_ONLY = { read: true };

ring3Test('what is mapped, unmapped and protected is what a program sees', async (t) => {
  const { platform, memory, space, context, start } = await program(t, ...READ);
  memory.write(4096, Uint8Array.of(5));
  t.is((await context.switch(space, start)).registers.rax, 5n);
  const second = await platform.newMemory(4096);
  second.write(0, Uint8Array.of(6));
  await space.map({ address: DATA, memory: second, protection: READ_ONLY, precommit: true });
  await second.close();
  t.is((await context.switch(space, start)).registers.rax, 6n, 'the space keeps the memory');
  await space.protect(DATA, 4096, {});
  t.like(await context.switch(space, start), { reason: 'fault', vector: 14, address: DATA, access: 'read' });
  await space.protect(DATA, 4096n, READ_ONLY);
  t.is((await context.switch(space, start)).registers.rax, 6n);
  await space.unmap(Number(DATA), 4096);
  t.like(await context.switch(space, start), { reason: 'fault', address: DATA });
});

ring3Test('changes are done in the order of their calls', async (t) => {
  const { memory, space, context, start } = await program(t, ...READ);
  const changes = [];
  for (let round = 0; round < 20; round++) {
    memory.write(4096, Uint8Array.of(round));
    changes.push(space.unmap(DATA, 4096));
    changes.push(space.map({ address: DATA, memory, offset: 4096, protection: READ_ONLY }));
  }
  await Promise.all(changes);
  t.is((await context.switch(space, start)).registers.rax, 19n);
});

ring3Test('a change that fails leaves the next one its turn', async (t) => {
  const { memory, space } = await program(t, ...READ);
  const wrong = space.unmap(1, 4096);
  const right = space.map({ address: 0x1000, memory, protection: READ_ONLY });
  await t.throwsAsync(wrong, code('ERR_RING3_RANGE'));
  await t.notThrowsAsync(right);
});

ring3Test('wrong ranges, parts and protections are refused', async (t) => {
  const { platform, memory, space } = await program(t, ...READ);
  const map = (change: object) => space.map({ address: CODE, memory, protection: READ_ONLY, ...change });
  await t.throwsAsync(map({ address: 0 }), code('ERR_RING3_RANGE', /0x0 is not one of whole pages/));
  await t.throwsAsync(map({ address: 2n ** 47n - 4096n }), code('ERR_RING3_RANGE'));
  await t.throwsAsync(map({ offset: 8192, length: 4096 }), code('ERR_RING3_RANGE', /offset 8192/));
  await t.throwsAsync(map({ offset: 12_288 }), code('ERR_INVALID_OPTIONS', /length/));
  await t.throwsAsync(map({ length: 0 }), code('ERR_RING3_RANGE'));
  await t.throwsAsync(map({ address: '1' }), code('ERR_INVALID_OPTIONS', /address/));
  await t.throwsAsync(map({ memory: {} }), code('ERR_INVALID_OPTIONS', /memory must be a Memory/));
  await t.throwsAsync(map({ protection: undefined }), code('ERR_INVALID_OPTIONS', /protection/));
  await t.throwsAsync(map({ protection: { write: 1 } }), code('ERR_INVALID_OPTIONS', /write/));
  await t.throwsAsync(space.map(null as never), code('ERR_INVALID_OPTIONS'));
  await t.throwsAsync(space.protect(0x7000_0000, 4096, READ_ONLY), code('ERR_RING3_RANGE', /0x70000000 is not mapped/));
  const other = await program(t, ...READ);
  await t.throwsAsync(
    other.space.map({ address: DATA, memory, protection: READ_ONLY }),
    code('ERR_INVALID_OPTIONS', /different machines/),
  );
  const foreign = other.platform.newContext();
  await t.throwsAsync(foreign.switch(space, {}), code('ERR_INVALID_OPTIONS', /different machines/));
  await foreign.close();
  await platform.close();
});

ring3Test('a released space refuses everything, and ends the switch in it', async (t) => {
  // jmp to itself
  const { memory, space, context, start } = await program(t, 0xeb, 0xfe);
  const running = context.switch(space, start);
  await space.release();
  await t.throwsAsync(running, code('ERR_RING3_CLOSED', /released/));
  await t.throwsAsync(context.switch(space, start), code('ERR_RING3_CLOSED', /address space is closed/));
  await t.throwsAsync(space.map({ address: CODE, memory, protection: READ_ONLY }), code('ERR_RING3_CLOSED'));
  await t.throwsAsync(space.unmap(CODE, 4096), code('ERR_RING3_CLOSED'));
  await t.notThrowsAsync(space.release());
});
