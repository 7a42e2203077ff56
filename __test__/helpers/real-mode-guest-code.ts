// A guest of a few bytes of real-mode code, for the low-level tests and their fixtures. Every KVM can run it, one that
// emulates guest kernels included.

import { Kvm, MemoryRegion, type VirtualCpu, type VirtualCpuRunner, type VirtualMachine } from '../../src/kvm/index.ts';

/** Where the code lies in the guest. */
export const CODE = 0x1000;
/** Bytes of the guest's memory, from {@link CODE}. */
export const MEMORY = 0x4000;

/** A machine with the code in slot 0. */
export interface Guest {
  readonly kvm: Kvm;
  readonly vm: VirtualMachine;
  readonly memory: MemoryRegion;
  readonly vcpu: VirtualCpu;
  readonly runner: VirtualCpuRunner;
}

/** A guest that is about to run `code`; the caller closes it. */
export function makeGuest(code: readonly number[]): Guest {
  const kvm = Kvm.open();
  const vm = kvm.createVm();
  const memory = MemoryRegion.anonymous(MEMORY);
  memory.write(0, Uint8Array.from(code));
  vm.setGuestMemoryRegion({ slot: 0, guestAddress: CODE, region: memory });
  const vcpu = vm.createVcpu(0);
  vcpu.modifySregs((sregs) => {
    sregs.cs.base = 0n;
    sregs.cs.selector = 0;
  });
  vcpu.modifyRegs((regs) => {
    regs.rip = BigInt(CODE);
    regs.rsp = BigInt(CODE + MEMORY);
    regs.rflags = 2n;
  });
  return { kvm, vm, memory, vcpu, runner: vcpu.createRunner() };
}
