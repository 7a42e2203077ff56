// A virtual machine of one page, whose guest prints a line through a port and halts.

import { Kvm, MemoryRegion } from '../src/kvm/index.ts';

const ADDRESS = 0x1000;
const PORT = 0x3f8;

// 16-bit code, as every x86 processor starts.
const code = [
  ...[0xbe, 0x0f, 0x10], //         mov si, text
  ...[0xba, 0xf8, 0x03], //         mov dx, PORT
  ...[0xac], //               next: lodsb
  ...[0x84, 0xc0], //               test al, al
  ...[0x74, 0x03], //               jz end
  ...[0xee], //                     out dx, al
  ...[0xeb, 0xf8], //               jmp next
  ...[0xf4], //                end: hlt
];
const text = new TextEncoder().encode('Hello from real mode\n\0');

const kvm = Kvm.open();
const vm = kvm.createVm();
const memory = MemoryRegion.anonymous(4096);
memory.write(0, Uint8Array.from([...code, ...text]));
vm.setGuestMemoryRegion({ slot: 0, guestAddress: ADDRESS, region: memory });

const vcpu = vm.createVcpu(0);
vcpu.modifySregs((sregs) => {
  sregs.cs.base = 0n;
  sregs.cs.selector = 0;
});
vcpu.modifyRegs((regs) => {
  regs.rip = BigInt(ADDRESS);
  regs.rflags = 2n;
});

const runner = vcpu.createRunner();
for (;;) {
  const exit = await runner.run();
  if (exit.reason === 'io-out' && exit.port === PORT) process.stdout.write(exit.data);
  else if (exit.reason === 'hlt') break;
  else throw new Error(`The guest ended by ${exit.reason}`);
}

await runner.close();
await vm.close();
memory.close();
kvm.close();
