//! Programs that go wrong, and what is known of it.

use microvm_ring3_linux::{ExitStatus, Limits, Program, Run, SandboxOptions};

use crate::fixture::*;

pub fn faults_end_programs_by_their_signals() {
    let mut sandbox = sandbox();
    let cases = [
        ("abort", 6, None),
        ("segv", 11, Some(14)),
        ("write-code", 11, Some(14)),
        ("run-data", 11, Some(14)),
        ("ill", 4, Some(6)),
        ("fpe", 8, Some(0)),
        ("trap", 5, Some(3)),
        ("overflow", 11, Some(14)),
        ("pipe", 13, None),
        ("term", 15, None),
    ];
    for (mode, signal, vector) in cases {
        let program = Program::at(c("signals")).args([mode]);
        let outcome = sandbox.run(program, Run::default()).unwrap();
        assert_eq!(
            outcome.exit,
            ExitStatus::Signaled(signal),
            "{mode} {outcome:?}"
        );
        assert_eq!(outcome.crash.map(|crash| crash.vector), vector, "{mode}");
        if mode == "segv" {
            assert_eq!(outcome.crash.unwrap().address, Some(0x1234));
        }
    }
}

pub fn handlers_run_and_return() {
    for options in [&["-static"][..], &["-static", "-march=native", "-O3"]] {
        let mut sandbox = sandbox();
        let program = Program::at(c_program("signals", options)).args(["handle"]);
        let output = text(sandbox.run(program, Run::default()).unwrap());
        let expected = "usr1 1 kept 1\nblocked 1 then 1\nsegv 1 at dead000\nfpe 1\nill 1\n\
            overflow 1 deep 1\nepipe 1\n";
        assert_eq!(output, expected);
    }
}

pub fn memory_files_and_pipes_behave() {
    let mut sandbox = sandbox();
    for _ in 0..3 {
        let outcome = sandbox
            .run(Program::at(c("memory")), Run::default())
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&outcome.stdout),
            "good\n",
            "{outcome:?}"
        );
        sandbox.reset().unwrap();
    }
}

pub fn stack_is_as_large_as_the_limit() {
    let limits = Limits {
        stack: 128 << 10,
        ..Limits::default()
    };
    let mut sandbox = sandbox_with(SandboxOptions {
        limits,
        ..SandboxOptions::default()
    });
    let program = Program::at(c("signals")).args(["overflow"]);
    let outcome = sandbox.run(program, Run::default()).unwrap();
    assert_eq!(outcome.exit, ExitStatus::Signaled(11));
    assert!(outcome.peak_memory < 2 << 20, "{outcome:?}");
}
