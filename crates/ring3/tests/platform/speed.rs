//! Not a test of speed, but figures to read in its output.

use std::time::Instant;

use microvm_kvm::{Exit as KvmExit, Kvm, MemoryRegion};
use microvm_ring3::{Exit, Restore, SwitchOptions};

use crate::fixture::*;

const ROUNDS: u32 = 100;

/// Nanoseconds of the quickest of five rounds of many calls.
fn fastest(mut call: impl FnMut()) -> u128 {
    let round = |_| {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            call();
        }
        (start.elapsed() / ROUNDS).as_nanos()
    };
    (0..5).map(round).min().unwrap()
}

pub fn round_trip_is_measured_against_a_bare_exit() {
    let machine = Kvm::open().unwrap().create_vm().unwrap();
    let region = std::sync::Arc::new(MemoryRegion::anonymous(0x1000).unwrap());
    // 1: out 0x10, al; jmp 1b, in real mode
    region.write(0, &[0xe6, 0x10, 0xeb, 0xfc]).unwrap();
    machine
        .set_guest_memory_region(0, 0, 0x1000, region)
        .unwrap();
    let vcpu = machine.create_vcpu(0).unwrap();
    vcpu.modify_sregs(|sregs| {
        sregs.cs.base = 0;
        sregs.cs.selector = 0;
    })
    .unwrap();
    vcpu.modify_regs(|regs| regs.rip = 0x1000).unwrap();
    let mut runner = vcpu.into_runner().unwrap();
    let bare = fastest(|| assert!(matches!(runner.run(), Ok(KvmExit::IoOut { .. }))));

    // 1: syscall; jmp 1b
    let mut program = program(&[0x0f, 0x05, 0xeb, 0xfc]);
    let mut trip = |restore| {
        let options = SwitchOptions {
            restore,
            ..SwitchOptions::default()
        };
        fastest(|| assert_eq!(program.switch_with(options), Ok(Exit::SystemCall)))
    };
    let (full, partial) = (trip(Restore::Full), trip(Restore::Partial));
    println!("bare exit {bare} ns, system call {full} ns, with partial restore {partial} ns");
}
