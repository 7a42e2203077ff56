//! Memory slots own what they map, and refuse what cannot be mapped.

use std::sync::Arc;

use microvm_kvm::{Error, Exit, MemoryRegion};

use crate::fixture::{CODE, MEMORY, machine_with, run_to_halt, runner_of};

fn region(length: u64) -> Arc<MemoryRegion> {
    Arc::new(MemoryRegion::anonymous(length).unwrap())
}

pub fn overlapping_slot_is_refused_with_the_slot_in_the_way() {
    let (machine, _) = machine_with(&[0xf4]);
    let late = region(4096);
    let error = machine
        .set_guest_memory_region(7, 0, CODE + MEMORY - 4096, Arc::clone(&late))
        .unwrap_err();
    match &error {
        Error::SlotOverlap {
            slot: 7,
            other: 0,
            length: 4096,
            ..
        } => {}
        error => panic!("{error}"),
    }
    assert_eq!(error.errno(), libc::EEXIST);
    assert_eq!(Arc::strong_count(&late), 1);
    assert!(matches!(
        machine.remove_guest_memory_region(7),
        Err(Error::SlotUnused { slot: 7 })
    ));
}

pub fn unaligned_or_overflowing_address_is_refused() {
    let (machine, _) = machine_with(&[0xf4]);
    for address in [1, 0x10_0800, u64::MAX - 4095, u64::MAX] {
        let error = machine
            .set_guest_memory_region(1, 0, address, region(8192))
            .unwrap_err();
        assert!(
            matches!(error, Error::SlotAddress { slot: 1, .. }),
            "{error}"
        );
    }
}

pub fn replaced_slot_shows_the_new_memory_and_frees_the_old() {
    // 1: mov al, [0x6000]; hlt; jmp 1b, with slot 1 at 0x6000
    let (machine, _) = machine_with(&[0xa0, 0x00, 0x60, 0xf4, 0xeb, 0xfa]);
    let mut runner = runner_of(&machine);
    let mut before: Option<Arc<MemoryRegion>> = None;
    for value in [0x11_u8, 0x22] {
        let new = region(4096);
        new.write(0, &[value]).unwrap();
        machine
            .set_guest_memory_region(1, 0, 0x6000, Arc::clone(&new))
            .unwrap();
        run_to_halt(&mut runner);
        assert_eq!(runner.get_regs().unwrap().rax & 0xff, u64::from(value));
        assert_eq!(Arc::strong_count(&new), 2);
        if let Some(before) = before.replace(new) {
            assert_eq!(Arc::strong_count(&before), 1);
        }
    }
}

pub fn refused_replacement_leaves_the_slot_as_it_was() {
    let (machine, memory) = machine_with(&[0xf4]);
    machine
        .set_guest_memory_region(1, 0, 0x10_0000, region(4096))
        .unwrap();
    let error = machine
        .set_guest_memory_region(0, 0, 0x10_0000, region(8192))
        .unwrap_err();
    assert!(
        matches!(error, Error::SlotOverlap { other: 1, .. }),
        "{error}"
    );
    assert_eq!(Arc::strong_count(&memory), 2);
    run_to_halt(&mut runner_of(&machine));
}

pub fn same_region_moves_in_one_step() {
    // mov al, [0x6000]; hlt
    let (machine, _) = machine_with(&[0xa0, 0x00, 0x60, 0xf4]);
    let moved = region(4096);
    moved.write(0, &[0x33]).unwrap();
    for address in [0x7000, 0x6000] {
        machine
            .set_guest_memory_region(1, 0, address, Arc::clone(&moved))
            .unwrap();
    }
    let mut runner = runner_of(&machine);
    run_to_halt(&mut runner);
    assert_eq!(runner.get_regs().unwrap().rax & 0xff, 0x33);
    let log = kvm_bindings::KVM_MEM_LOG_DIRTY_PAGES;
    machine
        .set_guest_memory_region(1, log, 0x6000, Arc::clone(&moved))
        .unwrap();
    assert_eq!(Arc::strong_count(&moved), 2);
}

pub fn removed_slot_frees_its_region_and_becomes_mmio() {
    // mov al, [0x6000]; hlt
    let (machine, _) = machine_with(&[0xa0, 0x00, 0x60, 0xf4]);
    let gone = region(4096);
    machine
        .set_guest_memory_region(1, 0, 0x6000, Arc::clone(&gone))
        .unwrap();
    let handed_back = machine.remove_guest_memory_region(1).unwrap();
    assert!(Arc::ptr_eq(&handed_back, &gone));
    drop(handed_back);
    assert_eq!(Arc::strong_count(&gone), 1);
    let mut runner = runner_of(&machine);
    match runner.run().unwrap() {
        Exit::MmioRead {
            address: 0x6000, ..
        } => {}
        exit => panic!("{exit:?}"),
    }
}

pub fn removing_an_unused_slot_is_an_error() {
    let (machine, _) = machine_with(&[0xf4]);
    let error = machine.remove_guest_memory_region(3).unwrap_err();
    assert_eq!(error, Error::SlotUnused { slot: 3 });
}

pub fn slot_keeps_a_region_that_its_maker_dropped() {
    let (machine, memory) = machine_with(&[0xf4]);
    let weak = Arc::downgrade(&memory);
    drop(memory);
    run_to_halt(&mut runner_of(&machine));
    assert_eq!(weak.strong_count(), 1);
    drop(machine);
    assert_eq!(weak.strong_count(), 0);
}

pub fn slot_number_out_of_range_is_the_kernels_answer() {
    let (machine, _) = machine_with(&[0xf4]);
    let error = machine
        .set_guest_memory_region(0xffff, 0, 0x10_0000, region(4096))
        .unwrap_err();
    assert_eq!(error.call(), "KVM_SET_USER_MEMORY_REGION");
    assert_eq!(error.errno(), libc::EINVAL);
}
