//! The measurement of guest speed, on a real device.

use std::path::Path;

use microvm_kvm::DEFAULT_DEVICE;
use microvm_kvm::guest_speed::measure_guest_speed;

pub fn loops_run_in_both_rings_and_take_measurable_time() {
    let speed = measure_guest_speed(Path::new(DEFAULT_DEVICE)).unwrap();
    eprintln!("{speed:?} ring 0 {:.1}", speed.ring0_ratio());
    assert!(speed.ring0_ratio() > 0.5);
    assert!(speed.ring3_ratio().unwrap() < 100.0);
}
