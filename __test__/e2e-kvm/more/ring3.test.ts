// Programs in ring 3 where KVM is native: a context by hand, sandboxes, the command line.

import { MicroVMError } from '../../../src/ring3/index.ts';
import { microvm } from '../../helpers/behaviours/command-line.ts';
import { BUSYBOX, CODE, DATA, program, sandbox, serialRing3Test } from '../../helpers/ring3.ts';

serialRing3Test('a context makes calls and faults, and is interrupted', async (t) => {
  // syscall; mov [rdi], al; jmp to itself
  const { space, context, start } = await program(t, 0x0f, 0x05, 0x88, 0x07, 0xeb, 0xfe);
  const call = await context.switch(space, { ...start, rax: 39n, rdi: 0n });
  t.deepEqual([call.reason, call.registers.rax, call.registers.rip], ['system-call', 39n, CODE + 2n]);
  const fault = await context.switch(space, call.registers, { restore: 'partial' });
  t.like(fault, { reason: 'fault', vector: 14, address: 0n, access: 'write' });
  const rest = { ...fault.registers, rdi: DATA };
  t.is((await context.switch(space, rest, { timeout: 50 })).reason, 'timed-out');
  const running = context.switch(space, rest);
  context.interrupt();
  t.is((await running).reason, 'interrupted');
});

serialRing3Test('a sandbox runs programs, keeps them to their time, and is reset', async (t) => {
  const box = await sandbox(t, { memory: '64MiB' });
  t.is((await box.run(BUSYBOX, ['cat'], { stdin: ['in', 'put'] })).stdout, 'input');
  await box.run(BUSYBOX, ['sh', '-c', 'echo kept > /tmp/f']);
  t.is((await box.run(BUSYBOX, ['cat', '/tmp/f'])).stdout, 'kept\n');
  await box.reset();
  t.is((await box.run(BUSYBOX, ['cat', '/tmp/f'], { reject: false })).exitCode, 1);
  const late = box.run(BUSYBOX, ['sh', '-c', 'while :; do :; done'], { timeout: 500 });
  await t.throwsAsync(late, { instanceOf: MicroVMError, code: 'ERR_EXEC_TIMEOUT' });
  const onSyscall = { names: ['geteuid'], decide: () => ({ answer: 42 }) };
  t.is((await box.run(BUSYBOX, ['id', '-u'], { onSyscall })).stdout, '42\n');
});

serialRing3Test('microvm ring3 run gives output and exit code', async (t) => {
  const line = 'read word; echo "got $word"; exit 7';
  const answer = await microvm(['ring3', 'run', '--', BUSYBOX, 'sh', '-c', line], 'it\n');
  t.deepEqual(answer, { stdout: 'got it\n', stderr: '', exitCode: 7 });
});
