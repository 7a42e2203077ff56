//! What programs do with their mappings, and what a reset leaves of it.

use microvm_ring3_linux::{ExitStatus, Outcome, Program, Run, Sandbox};

use crate::fixture::*;

fn run(sandbox: &mut Sandbox, args: &[String]) -> Outcome {
    let options = [
        "-O1",
        "-static",
        "-nostdlib",
        "-fno-stack-protector",
        "-fno-pie",
        "-no-pie",
    ];
    let program = Program::at(c_program("mappings", &options)).args(args);
    let outcome = sandbox.run(program, Run::default()).unwrap();
    assert_eq!(
        outcome.exit,
        ExitStatus::Exited(0),
        "{args:?} {:?} {outcome:?}",
        outcome.crash
    );
    outcome
}

/// The program keeps account of each page's contents and protection. Whatever it did, the next one
/// finds what it finds in a new sandbox, and nothing else is mapped.
pub fn changes_at_random_are_as_accounted_and_reset_equals_fresh() {
    let fresh = run(&mut sandbox(), &[]).stdout;
    let mut sandbox = sandbox();
    for seed in 1..rounds(20_000, 100) {
        run(&mut sandbox, &[seed.to_string()]);
        if seed % 3 == 0 {
            sandbox.reset().unwrap();
        }
        assert_eq!(run(&mut sandbox, &[]).stdout, fresh, "{seed}");
    }
}
