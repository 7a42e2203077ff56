import { mkdtempSync, rmSync, truncateSync, writeFileSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { ExecutionContext } from 'ava';
import { MicroVMError, Platform } from '../../src/ring3/index.ts';
import { DATA, program, ring3Test } from '../helpers/ring3.ts';

const code = (code: string, message?: RegExp) => ({ instanceOf: MicroVMError, code, ...(message && { message }) });
/** mov rax, [rdi]; syscall */
const READ = [0x48, 0x8b, 0x07, 0x0f, 0x05];
/** mov [rdi], rsi; syscall */
const WRITE = [0x48, 0x89, 0x37, 0x0f, 0x05];

function folder(t: ExecutionContext): string {
  const made = mkdtempSync(path.join(tmpdir(), 'microvm-ring3-'));
  t.teardown(() => rmSync(made, { recursive: true }));
  return made;
}

ring3Test('memory is copied in and out, inside of its bounds only', async (t) => {
  const platform = await Platform.open('kvm');
  const memory = await platform.newMemory(8192n);
  t.teardown(async () => {
    await memory.close();
    await platform.close();
  });
  t.is(memory.length, 8192);
  memory.write(8190n, Uint8Array.of(1, 2));
  t.deepEqual(memory.read(8189, 3), Uint8Array.of(0, 1, 2));
  t.throws(() => memory.write(8191, Uint8Array.of(1, 2)), code('ERR_KVM_OUT_OF_BOUNDS'));
  t.throws(() => memory.read(8191, 2), code('ERR_RING3_RANGE', /not inside of the memory of 8192/));
  t.throws(() => memory.read(2n ** 64n - 1n, 2), code('ERR_RING3_RANGE'));
  t.throws(() => memory.read(-1, 2), code('ERR_INVALID_OPTIONS', /offset/));
  t.throws(() => memory.read(0, 1.5), code('ERR_INVALID_OPTIONS', /length/));
  t.throws(() => memory.write(0, 'x' as unknown as Uint8Array), code('ERR_INVALID_OPTIONS', /Uint8Array/));
  await t.throwsAsync(platform.newMemory(100), code('ERR_KVM_UNALIGNED'));
  await t.throwsAsync(platform.newMemory(0), code('ERR_KVM_UNALIGNED'));
  await memory.close();
  t.throws(() => memory.read(0, 1), code('ERR_RING3_CLOSED', /memory is closed/));
});

ring3Test('a program reads and writes a file that is mapped', async (t) => {
  const file = path.join(folder(t), 'f');
  writeFileSync(file, `${'A'.repeat(8)}rest`);
  const { platform, space, context, start } = await program(t, ...READ);
  const memory = await platform.memoryOfFile(file);
  t.is(memory.length, 4096, 'whole pages');
  await space.map({ address: DATA, memory, protection: { read: true } });
  const exit = await context.switch(space, start);
  t.is(exit.registers.rax, 0x4141_4141_4141_4141n);
  await t.throwsAsync(
    space.map({ address: DATA, memory, protection: { read: true, write: true } }),
    code('ERR_RING3_RANGE', /only be read/),
  );
  await memory.close();

  const writer = await program(t, ...WRITE);
  const shared = await writer.platform.memoryOfFile(file, { writable: true, length: 4096 });
  await writer.space.map({ address: DATA, memory: shared, protection: { read: true, write: true } });
  await shared.close();
  t.is((await writer.context.switch(writer.space, { ...writer.start, rsi: 0x42n })).reason, 'system-call');
  t.is(readFileSync(file, 'latin1'), `B${'\0'.repeat(7)}rest`);
});

ring3Test('a file that becomes shorter is a bus error of the program', async (t) => {
  const file = path.join(folder(t), 'f');
  writeFileSync(file, Buffer.alloc(8192));
  const { platform, space, context, start } = await program(t, ...READ);
  const memory = await platform.memoryOfFile(file, { offset: 4096 });
  await space.map({ address: DATA, memory, protection: { read: true } });
  truncateSync(file, 4096);
  t.is((await context.switch(space, start)).reason, 'bus-error');
  await memory.close();
});

ring3Test('a file that cannot be opened is named', async (t) => {
  const platform = await Platform.open('kvm');
  t.teardown(() => platform.close());
  await t.throwsAsync(
    platform.memoryOfFile('/no/such/file'),
    code('ERR_RING3_FILE', /\/no\/such\/file cannot be opened/),
  );
  await t.throwsAsync(platform.memoryOfFile(''), code('ERR_INVALID_OPTIONS'));
});
