//! System calls whose edges matter.

use std::io::Write;
use std::time::Duration;

use microvm_ring3_linux::{
    CallSet, Decision, ExitStatus, Input, Limits, Outcome, Output, Policy, Program, Run,
    SandboxOptions, SystemCall,
};

use crate::fixture::*;

fn run(mode: &str, run: Run<'_>) -> Outcome {
    let program = Program::at(c("calls")).args([mode]);
    sandbox().run(program, run).unwrap()
}

pub fn vectors_files_and_numbers_are_as_on_linux() {
    assert_eq!(text(run("vectors", Run::default())), "good\n");
}

pub fn signals_and_names_are_as_on_linux() {
    assert_eq!(text(run("signals", Run::default())), "good\n");
}

/// Here and on the host's own Linux.
pub fn wild_pointers_are_errors_in_every_call() {
    let path = c("pointers");
    let native = std::process::Command::new(&path).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&native.stdout), "good\n");
    let mut sandbox = sandbox();
    for _ in 0..2 {
        let outcome = sandbox.run(Program::at(&path), Run::default()).unwrap();
        assert_eq!(outcome.unsupported.len(), 0, "{:?}", outcome.unsupported);
        let found = String::from_utf8_lossy(&outcome.stdout);
        assert_eq!((&*found, outcome.exit), ("good\n", ExitStatus::Exited(0)));
    }
    assert_eq!(text(busybox(&mut sandbox, &["echo", "x"])), "x\n");
}

pub fn policies_are_told_both_paths() {
    struct Paths(Vec<String>);
    impl Policy for Paths {
        fn wanted(&self) -> CallSet {
            let names = [
                "rename",
                "link",
                "symlink",
                "renameat",
                "linkat",
                "symlinkat",
            ];
            CallSet::of_names(names).unwrap()
        }
        fn decide(&mut self, call: &SystemCall<'_>) -> Decision {
            let text = |path: Option<&[u8]>| String::from_utf8_lossy(path.unwrap()).into_owned();
            let pair = text(call.path) + " " + &text(call.second_path);
            self.0.push(pair);
            Decision::Deny(13)
        }
    }
    let mut paths = Paths(Vec::new());
    let asked = Run {
        policy: Some(&mut paths),
        ..Run::default()
    };
    assert_eq!(run("names", asked).exit, ExitStatus::Exited(0));
    assert_eq!(paths.0, ["a b", "c d", "e /f/g", "h i"]);
}

pub fn no_mapping_of_the_program_breaks_the_platform() {
    let outcome = run("mappings", Run::default());
    assert_eq!(outcome.exit, ExitStatus::Signaled(11), "{outcome:?}");
    assert!(outcome.stdout.is_empty(), "{outcome:?}");
}

pub fn times_beyond_the_clock_are_for_ever() {
    let forever = Run {
        timeout: Some(Duration::from_millis(300)),
        ..Run::default()
    };
    assert!(run("for-ever", forever).timed_out);
    let mut sandbox = sandbox_with(SandboxOptions {
        limits: Limits {
            cpu_time: Some(Duration::MAX),
            ..Limits::default()
        },
        ..SandboxOptions::default()
    });
    assert_eq!(text(busybox(&mut sandbox, &["echo", "x"])), "x\n");
}

pub fn streams_are_told_apart_and_give_what_they_have() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let (gone, stdout) = std::io::pipe().unwrap();
    drop(gone);
    let (_full, mut stderr) = std::io::pipe().unwrap();
    stderr.write_all(&[0; 64 << 10]).unwrap();
    let outcome = run(
        "streams",
        Run {
            stdin: Input::Descriptor(reader.into()),
            stdout: Output::Descriptor(stdout.into()),
            stderr: Output::Descriptor(stderr.into()),
            ..Run::default()
        },
    );
    assert_eq!(outcome.exit, ExitStatus::Exited(0), "{outcome:?}");
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"abc").unwrap();
    let lines = Run {
        stdin: Input::Descriptor(reader.into()),
        timeout: Some(PATIENCE),
        ..Run::default()
    };
    assert_eq!(run("lines", lines).exit, ExitStatus::Exited(0));
}
