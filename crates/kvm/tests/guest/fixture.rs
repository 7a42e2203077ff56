//! A guest of a few bytes of real-mode code.

use std::sync::Arc;

use microvm_kvm::{Exit, Kvm, MemoryRegion, VirtualCpuRunner, VirtualMachine};

/// Where the guest's code lies, by guest physical address.
pub const CODE: u64 = 0x1000;
/// Bytes of the guest's memory, from [`CODE`].
pub const MEMORY: u64 = 0x4000;
/// Where no memory is.
pub const UNBACKED: u16 = 0x8000;

/// A machine with [`MEMORY`] bytes at [`CODE`], in slot 0.
pub fn machine_with(code: &[u8]) -> (VirtualMachine, Arc<MemoryRegion>) {
    let machine = Kvm::open().unwrap().create_vm().unwrap();
    let region = Arc::new(MemoryRegion::anonymous(MEMORY).unwrap());
    region.write(0, code).unwrap();
    machine
        .set_guest_memory_region(0, 0, CODE, Arc::clone(&region))
        .unwrap();
    (machine, region)
}

/// A vCPU of the machine that starts in real mode at [`CODE`].
pub fn runner_of(machine: &VirtualMachine) -> VirtualCpuRunner {
    let vcpu = machine.create_vcpu(0).unwrap();
    vcpu.modify_sregs(|sregs| {
        sregs.cs.base = 0;
        sregs.cs.selector = 0;
    })
    .unwrap();
    vcpu.modify_regs(|regs| {
        regs.rip = CODE;
        regs.rsp = CODE + MEMORY;
        regs.rflags = 2;
    })
    .unwrap();
    vcpu.into_runner().unwrap()
}

/// A vCPU that is about to run `code`.
pub fn guest(code: &[u8]) -> VirtualCpuRunner {
    let (machine, _) = machine_with(code);
    runner_of(&machine)
}

/// Runs until the guest halts; any other exit fails the test.
pub fn run_to_halt(runner: &mut VirtualCpuRunner) {
    let exit = runner.run().unwrap();
    assert_eq!(exit, Exit::Hlt);
}
