//! Any order of drops is right, and leaves nothing.

use std::fs;

use microvm_kvm::{HugePages, MemoryRegion};

use crate::fixture::{guest, machine_with, run_to_halt, runner_of};

pub fn vcpu_outlives_the_handles_it_came_from() {
    let (machine, region) = machine_with(&[0xf4]);
    let mut runner = runner_of(&machine);
    let weak = std::sync::Arc::downgrade(&region);
    drop(region);
    drop(machine);
    run_to_halt(&mut runner);
    assert_eq!(weak.strong_count(), 1);
    drop(runner);
    assert_eq!(weak.strong_count(), 0);
}

pub fn nothing_is_left_open_or_mapped_after_fifty_rounds() {
    let round = || {
        run_to_halt(&mut guest(&[0xf4]));
        drop(MemoryRegion::memfd(8192, HugePages::Off).unwrap());
    };
    // The first round may make what stays: the allocator's memory, the signal's handler.
    round();
    let before = (descriptors(), kvm_mappings());
    for _ in 0..50 {
        round();
    }
    assert_eq!((descriptors(), kvm_mappings()), before);
}

fn descriptors() -> Vec<String> {
    let mut open: Vec<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.display().to_string())
        .filter(|target| !target.starts_with("/proc/"))
        .collect();
    open.sort();
    open
}

/// Mappings of vCPUs and of guest memory.
fn kvm_mappings() -> usize {
    fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .filter(|line| {
            line.contains("kvm-vcpu") || line.contains("/dev/zero") || line.contains("memfd")
        })
        .count()
}
