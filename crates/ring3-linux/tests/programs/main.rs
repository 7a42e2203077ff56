//! Tests that run programs in sandboxes. Where there is no KVM that can, each of them is reported
//! as ignored, and the reason is printed: never as passed. With `MICROVM_TEST_REQUIRE_ALL` that is a
//! failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod fixture;
mod real;

use libtest_mimic::{Arguments, Trial};
use microvm_ring3::{KvmOptions, KvmPlatform, open_device};

/// Lists tests by their functions' names.
macro_rules! tests {
    ($($module:ident: $($name:ident),* $(,)?;)*) => {
        vec![$($((
            concat!(stringify!($module), "::", stringify!($name)),
            $module::$name as fn(),
        )),*),*]
    };
}

fn main() {
    let tests: Vec<(&str, fn())> = tests! {
        real:
            busybox_applets_give_the_right_output,
            busybox_writes_files_in_memory_only,
            shell_scripts_of_builtins_and_loops_run,
            programs_that_start_others_are_told_that_there_are_none,
            stdin_reaches_the_program,
            glibc_programs_run_at_fixed_and_any_address,
            rust_programs_run,
            lua_runs_a_script;
    };
    let mut arguments = Arguments::from_args();
    // They count descriptors and mappings of the process.
    arguments.test_threads = Some(1);
    let machine =
        open_device(None).and_then(|device| KvmPlatform::new(device, KvmOptions::default()));
    if let Err(error) = &machine {
        eprintln!("not run, for want of a KVM that can: {error}");
        if std::env::var_os("MICROVM_TEST_REQUIRE_ALL").is_some_and(|all| all == "1") {
            std::process::exit(1);
        }
    }
    let usable = machine.is_ok();
    drop(machine);
    let trials = tests
        .into_iter()
        .map(|(name, test)| {
            Trial::test(name, move || {
                test();
                Ok(())
            })
            .with_ignored_flag(!usable)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}
