import test from 'ava';

import { kvm } from '../../src/accelerators/kvm.ts';
import { tcg } from '../../src/accelerators/qemu/tcg.ts';
import type { MicroVMOptions } from '../../src/config/options.ts';
import { normalize } from '../../src/config/normalize.ts';
import { kernelCommandLine } from '../../src/vm/kernel-command-line.ts';

for (const accelerator of [kvm, tcg]) {
  test(`${accelerator.name}: the console, the host name and a panic that ends the machine`, (t) => {
    const words = kernelCommandLine(normalize({ hostname: 'patient' }), accelerator).split(' ');
    for (const word of ['console=ttyS0', 'panic=-1', 'microvm.hostname=patient']) t.true(words.includes(word), word);
  });

  test(`${accelerator.name}: shares are told to the agent, and too many of them to the caller`, (t) => {
    const share = { word: `microvm.mount=fs0,rw,/${'x'.repeat(200)}` };
    t.true(kernelCommandLine(normalize(), accelerator, [share]).includes(` ${share.word}`));
    const many = Array.from({ length: 8 }, () => share);
    const spec = normalize({ cmdline: 'x'.repeat(500) });
    t.throws(() => kernelCommandLine(spec, accelerator, many), { code: 'ERR_COMMAND_LINE_TOO_LONG' });
  });

  test(`${accelerator.name}: the agent hears of the port where it is another than the usual one`, (t) => {
    const line = (vsock: MicroVMOptions['vsock']): string => kernelCommandLine(normalize({ vsock }), accelerator);
    t.regex(line({ type: 'vhost', port: 5000 }), / microvm\.port=5000(?: |$)/);
    for (const usual of ['unix', 'vhost'] as const) t.notRegex(line(usual), /microvm\.port/);
  });

  test(`${accelerator.name}: the caller's words come last, where the kernel prefers them`, (t) => {
    t.true(kernelCommandLine(normalize({ cmdline: 'panic=5 -- x' }), accelerator).endsWith(' panic=5 -- x'));
  });

  test(`${accelerator.name}: the longest words that the options allow still fit what the kernel reads`, (t) => {
    const spec = normalize({ cmdline: 'x'.repeat(1535), hostname: 'h'.repeat(63) });
    t.true(Buffer.byteLength(kernelCommandLine(spec, accelerator)) <= 2047);
  });
}
