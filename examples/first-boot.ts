// Boots a microVM, runs two commands in it, and shows where the time went: `node examples/first-boot.ts`.

import { MicroVM } from '@hybrid/microvm';

const LONGER = [
  'echo "processors: $(nproc), memory: $(free -m | awk \'/^Mem/ {print $2}\') MiB, processes: $(ls -d /proc/[0-9]* | wc -l)"',
  'dd if=/dev/zero bs=1M count=8 2>/dev/null | sha256sum',
  'echo "up for $(cut -d" " -f1 /proc/uptime) s"',
].join('\n');

function show(phase: string, milliseconds: number): void {
  console.log(`  ${phase.padEnd(28)} ${milliseconds.toFixed(0).padStart(6)} ms`);
}

console.log('Boots a microVM');
const vm = await MicroVM.create();
try {
  const { choose, kernel, initramfs, machine, boot, total } = vm.timings;
  console.log(`  ${vm.acceleratorReason}`);
  show('choose the accelerator', choose);
  show('find the kernel', kernel);
  show('build or find the initramfs', initramfs);
  show('make the machine', machine);
  show('boot until the agent answers', boot);
  show('in all', total);

  console.log('\n$ uname -a');
  const uname = await vm.exec('uname', ['-a']);
  process.stdout.write(uname.stdout);
  show('took', uname.durationMs);

  console.log('\n$ a longer one: processors, memory, a checksum of 8 MiB');
  const longer = await vm.exec(LONGER);
  process.stdout.write(longer.stdout);
  show('took', longer.durationMs);
} finally {
  const started = performance.now();
  const { reason } = await vm.stop();
  console.log(`\nStopped (${reason})`);
  show('took', performance.now() - started);
}
