//! Machines leave nothing behind.

use microvm_vmm::{ExitReason, Machine, reaper};

use super::guest::Code;
use super::support::{Bench, alone, config, has_kvm};
use super::world::World;

#[test]
fn rounds_of_create_run_and_stop_leave_no_descriptor_thread_or_memory() {
    let _alone = alone();
    if !has_kvm() {
        return;
    }
    let round = |round: u8| {
        let code = match round % 3 {
            0 => Code::new().print("x").power_off(),
            1 => Code::new().print("x").spin(),
            _ => Code::new().raw(&[0x0f, 0x0b]),
        };
        let bench = Bench::build(&code, |config| {
            config.cpus = 1 + round % 3;
            config.rng = true;
        });
        // Some are dropped before they ever ran.
        if !round.is_multiple_of(5) {
            bench.machine.start().unwrap();
        }
        if round.is_multiple_of(3) && !round.is_multiple_of(5) {
            assert_eq!(bench.machine.wait(), ExitReason::PowerOff);
        }
        drop(bench);
    };
    // The first one opens what stays open for the process.
    round(1);
    reaper::wait_idle();
    let before = World::now();
    for number in 0..30 {
        round(number);
    }
    reaper::wait_idle();
    assert_eq!(World::now(), before);
}

#[test]
fn a_machine_that_cannot_be_made_leaves_nothing() {
    let _alone = alone();
    if !has_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kernel = Code::new().spin().write(&folder);
    reaper::wait_idle();
    let before = World::now();
    for number in 0..10 {
        let mut config = config(&kernel);
        config.rng = true;
        match number % 3 {
            0 => config.kernel = folder.path().join("missing"),
            1 => config.console = Some(std::fs::File::open("/dev/null").unwrap().into()),
            _ => config.kvm_device = Some("/dev/null".into()),
        }
        assert!(Machine::new(config).is_err());
    }
    reaper::wait_idle();
    assert_eq!(World::now(), before);
}
