//! What is left when things are gone.

use std::fs;

use microvm_kvm::reaper;
use microvm_ring3::{
    Exit, KvmOptions, NewAddressSpace, Platform, Protection, Registers, SwitchOptions, lookup,
};
use microvm_test_support::{assert_no_more, counts};

use crate::fixture::*;

/// Descriptors that lead to something of this name.
pub fn descriptors(name: &str) -> usize {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let links = entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links
        .filter(|link| link.to_string_lossy().contains(name))
        .count()
}

pub fn device_is_closed_when_the_machine_is_made() {
    reaper::wait_idle();
    let before = descriptors("kvm-vm");
    let program = program_on(&platform_with(1), &SYSCALL);
    assert_eq!(descriptors("/dev/kvm"), 0);
    assert_eq!(descriptors("kvm-vm"), before + 1);
    drop(program);
    reaper::wait_idle();
    assert_eq!(descriptors("kvm-vm"), before);
}

pub fn facts_of_the_platform_are_those_of_its_kind() {
    let constructor = lookup("kvm").unwrap();
    let device = constructor.open_device(None).unwrap();
    let platform = constructor
        .new_platform(device, KvmOptions::default())
        .unwrap();
    assert!(!platform.supports_address_space_io());
    assert!(!platform.cooperatively_schedules_address_spaces());
    assert!(!platform.detects_cpu_preemption());
    assert!(platform.owns_page_tables());
    assert!(platform.has_global_memory_barrier());
    assert_eq!(platform.map_unit(), 16 << 20);
    assert_eq!(platform.min_user_address(), 4096);
    assert_eq!(platform.max_user_address(), (1 << 47) - 4096);
    let space = platform.new_address_space().unwrap();
    assert!(matches!(space, NewAddressSpace::Ready(_)));
}

pub fn thousands_of_spaces_and_contexts_leave_nothing_behind() {
    let platform = platform_with(1);
    let memory = platform.new_memory(PAGE).unwrap();
    memory.write(0, &SYSCALL).unwrap();
    let code = Protection::READ_EXECUTE;
    let round = |spaces, memories| {
        for number in 0..spaces {
            let space = platform.address_space().unwrap();
            space.map(CODE, &memory, 0, PAGE, code, false).unwrap();
            let mut context = platform.new_context();
            let mut registers = Registers {
                rip: CODE,
                ..Registers::default()
            };
            // Some are dropped without having run.
            if number % 4 == 0 {
                let exit = context.switch(&space, &mut registers, SwitchOptions::default());
                assert_eq!(exit, Ok(Exit::SystemCall));
            }
        }
        for _ in 0..memories {
            program_on(&platform, &SYSCALL).call();
        }
    };
    // An emulated machine takes a hundred times as long.
    let emulated = std::env::var_os("MICROVM_LAB").is_some();
    let spaces = if emulated { 500 } else { 10_000 };
    round(100, 1);
    let before = counts();
    round(spaces, 20);
    // Tables are taken from the host in large pieces, and now and then there is one more.
    assert_no_more(before, [4, 8, 0], PATIENCE / 6);
}

pub fn machines_leave_nothing_behind() {
    let round = || {
        for _ in 0..5 {
            program_on(&platform_with(1), &SYSCALL).call();
        }
        reaper::wait_idle();
    };
    round();
    let before = counts();
    for _ in 0..3 {
        round();
    }
    assert_no_more(before, [0, 4, 0], PATIENCE / 6);
}
