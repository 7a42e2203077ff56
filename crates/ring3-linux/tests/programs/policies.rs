//! Policies, observers, and files that are not programs.

use std::time::{Duration, Instant};

use microvm_ring3_linux::{
    CallSet, Decision, ElfError, Error, ExitStatus, Limit, Limits, Observed, Observer, Policy,
    Program, Run, Sandbox, SandboxOptions, SystemCall,
};

use crate::assembled::*;
use crate::fixture::*;

struct Rules {
    asked: Vec<String>,
}

impl Policy for Rules {
    fn wanted(&self) -> CallSet {
        CallSet::of_names(["openat", "open", "getuid", "getppid"]).unwrap()
    }

    fn decide(&mut self, call: &SystemCall<'_>) -> Decision {
        let path = call
            .path
            .map(|path| String::from_utf8_lossy(path).into_owned());
        self.asked.push(format!(
            "{} {}",
            call.name().unwrap(),
            path.as_deref().unwrap_or("-")
        ));
        match (call.name(), path.as_deref()) {
            (Some("getuid"), _) => Decision::Answer(1234),
            (_, Some("/tmp/forbidden")) => Decision::Deny(13),
            _ => Decision::Allow,
        }
    }
}

pub fn policy_allows_denies_and_answers_what_it_wants() {
    let mut sandbox = sandbox();
    let mut rules = Rules { asked: Vec::new() };
    let run = Run {
        policy: Some(&mut rules),
        ..Run::default()
    };
    let script = "echo a > /tmp/allowed; read x < /tmp/allowed; echo $x; echo b > /tmp/forbidden";
    let program = Program::at(busybox_path()).args(["ash", "-c", script]);
    let outcome = sandbox.run(program, run).unwrap();
    assert_eq!(outcome.stdout, b"a\n");
    assert!(String::from_utf8_lossy(&outcome.stderr).contains("Permission denied"));
    assert!(
        rules
            .asked
            .iter()
            .any(|asked| asked.ends_with("/tmp/allowed")),
        "{:?}",
        rules.asked
    );
    let run = Run {
        policy: Some(&mut rules),
        ..Run::default()
    };
    let program = Program::at(busybox_path()).args(["id", "-ru"]);
    assert_eq!(text(sandbox.run(program, run).unwrap()), "1234\n");
    assert!(rules.asked.iter().all(|asked| !asked.starts_with("write")));
}

/// Allows everything, once it is too late.
struct Late;

impl Policy for Late {
    fn wanted(&self) -> CallSet {
        CallSet::of_names(["getuid"]).unwrap()
    }

    fn decide(&mut self, call: &SystemCall<'_>) -> Decision {
        let until = call.until.expect("the run has a time");
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        Decision::Answer(1234)
    }
}

pub fn policy_that_decides_too_late_decides_nothing() {
    let mut sandbox = sandbox();
    let run = Run {
        policy: Some(&mut Late),
        timeout: Some(Duration::from_secs(2)),
        ..Run::default()
    };
    let program = Program::at(busybox_path()).args(["id", "-ru"]);
    let outcome = sandbox.run(program, run).unwrap();
    assert_eq!(outcome.limit, Some(Limit::WallTime));
    assert_eq!(outcome.stdout, b"");
}

#[derive(Default)]
struct Lines(Vec<String>);

impl Observer for Lines {
    fn observe(&mut self, call: &Observed<'_>) {
        assert!(!call.line.contains(['\n', '\x1b']), "{}", call.line);
        self.0.push(call.line.to_owned());
    }
}

pub fn observer_sees_each_call_as_a_line() {
    let mut sandbox = sandbox();
    let mut lines = Lines::default();
    let run = Run {
        observer: Some(&mut lines),
        ..Run::default()
    };
    let program = Program::at(busybox_path()).args(["cat", "/nothing\n\x1b[2J", "/dev/null"]);
    let outcome = sandbox.run(program, run).unwrap();
    assert_eq!(lines.0.len() as u64, outcome.system_calls, "{:?}", lines.0);
    let has = |part: &str| lines.0.iter().any(|line| line.contains(part));
    assert!(
        has(r#""/nothing\n\033[2J", O_RDONLY"#) && has(") = -1 ENOENT"),
        "{:?}",
        lines.0
    );
    assert!(
        has("exit_group(1) = ?") || has("exit_group(1) = 0"),
        "{:?}",
        lines.0
    );
    let mut lines = Lines::default();
    let run = Run {
        observer: Some(&mut lines),
        ..Run::default()
    };
    sandbox
        .run(Program::at(c("signals")).args(["abort"]), run)
        .unwrap();
    assert_eq!(lines.0.last().unwrap(), "+++ killed by SIGABRT +++");
}

fn refused(bytes: &[u8]) -> ElfError {
    match sandbox().run(Program::of(file(bytes)), Run::default()) {
        Err(Error::Executable { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

pub fn files_that_cannot_run_are_told_apart() {
    let good = assembled(&EXIT_WITH_RAX);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        refused(&bytes)
    };
    assert_eq!(refused(b""), ElfError::NotElf);
    assert_eq!(refused(b"MZ..."), ElfError::NotElf);
    assert_eq!(refused(b"#!/bin/sh\n"), ElfError::Script);
    assert!(matches!(refused(&good[..40]), ElfError::Truncated { .. }));
    assert!(matches!(refused(&good[..100]), ElfError::Truncated { .. }));
    assert!(matches!(
        refused(&good[..good.len() - 1]),
        ElfError::Truncated { .. }
    ));
    assert_eq!(with(&|bytes| bytes[4] = 1), ElfError::Class32);
    assert_eq!(with(&|bytes| bytes[5] = 2), ElfError::BigEndian);
    assert_eq!(
        with(&|bytes| bytes[18] = 183),
        ElfError::Machine { machine: 183 }
    );
    assert_eq!(with(&|bytes| bytes[16] = 1), ElfError::Kind { kind: 1 });
    assert!(matches!(
        with(&|bytes| bytes[54] = 32),
        ElfError::Malformed { .. }
    ));
    assert_eq!(with(&|bytes| bytes[56] = 0), ElfError::NoSegments);
    assert!(matches!(
        with(&|bytes| bytes[68] = 4),
        ElfError::Entry { .. }
    ));
    assert!(matches!(
        with(&|bytes| bytes[68] = 7),
        ElfError::WritableCode { .. }
    ));
    assert!(matches!(with(&|bytes| bytes[64] = 3), ElfError::Dynamic));
    assert!(matches!(
        with(&|bytes| bytes[31] = 1),
        ElfError::Entry { .. }
    ));

    let of = |headers: &[[u8; 56]]| refused(&elf(2, CODE, headers, &[0; 0x2000]));
    let code = segment(5, 0, 0x40_0000, 0x1000, 0x1000);
    assert!(matches!(of(&[code, code]), ElfError::Overlapping { .. }));
    let near = segment(6, 0x800, 0x40_0800, 16, 16);
    assert!(matches!(of(&[code, near]), ElfError::Overlapping { .. }));
    let below = segment(6, 0, 0x30_0000, 16, 16);
    assert!(matches!(of(&[code, below]), ElfError::Overlapping { .. }));
    for (address, length) in [
        (0, 16),
        (1 << 47, 4096),
        (0xffff_8000_0000_0000, 4096),
        (0x50_0000, u64::MAX),
        (!4095, 4096),
    ] {
        let error = of(&[code, segment(6, 0, address, 0, length)]);
        assert!(
            matches!(error, ElfError::Address { .. }),
            "{address:x} {error:?}"
        );
    }
    let huge = segment(6, 0, 0x50_0000, 0, 1 << 40);
    assert!(matches!(of(&[code, huge]), ElfError::TooLarge { .. }));
    let beyond = segment(6, u64::MAX - 4095, 0x50_0000, 4096, 4096);
    assert!(matches!(of(&[code, beyond]), ElfError::Truncated { .. }));
    let shrunk = segment(6, 0, 0x50_0000, 100, 50);
    assert!(matches!(of(&[code, shrunk]), ElfError::Malformed { .. }));
    let skewed = segment(6, 8, 0x50_0000, 8, 8);
    assert!(matches!(of(&[code, skewed]), ElfError::Malformed { .. }));
    // A program that needs libraries, without a loader.
    let mut library = elf(
        3,
        0xb0,
        &[code, header(2, 4, [0x100, 0, 0, 32, 32, 8])],
        &[],
    );
    library.resize(0x2000, 0);
    library[0x100] = 1;
    assert_eq!(refused(&library), ElfError::Dynamic);
    // What Debian has: dynamically linked, and a script.
    let path = std::path::Path::new("/bin/true");
    let error = sandbox()
        .run(Program::at(path), Run::default())
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Executable {
                source: ElfError::Dynamic,
                ..
            }
        ),
        "{error}"
    );
    let error = sandbox()
        .run(Program::at("/etc"), Run::default())
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Executable {
                source: ElfError::NotRegular,
                ..
            }
        ),
        "{error}"
    );
    let error = sandbox()
        .run(Program::at("/nonexistent"), Run::default())
        .unwrap_err();
    assert!(matches!(error, Error::Program { .. }), "{error}");
}

pub fn options_that_make_no_sense_are_refused() {
    let machine = machine();
    let with = |limits| {
        Sandbox::on(
            &machine,
            SandboxOptions {
                limits,
                ..SandboxOptions::default()
            },
        )
    };
    for (name, limits) in [
        (
            "memory",
            Limits {
                memory: 100,
                ..Limits::default()
            },
        ),
        (
            "stack",
            Limits {
                stack: u64::MAX,
                ..Limits::default()
            },
        ),
        (
            "open_files",
            Limits {
                open_files: 100_000,
                ..Limits::default()
            },
        ),
    ] {
        let error = with(limits).unwrap_err();
        assert!(
            matches!(&error, Error::Limit { name: found, .. } if *found == name),
            "{error}"
        );
    }
    let options = |root: &str, cwd: &std::ffi::CStr| SandboxOptions {
        root: Some(root.into()),
        cwd: cwd.to_owned(),
        ..SandboxOptions::default()
    };
    let error = Sandbox::on(&machine, options("/nonexistent", c"/")).unwrap_err();
    assert!(matches!(error, Error::Root { .. }), "{error}");
    let error = Sandbox::on(&machine, options("/etc", c"/nonexistent")).unwrap_err();
    assert!(matches!(error, Error::WorkingDirectory { .. }), "{error}");
    let mut sandbox = sandbox();
    let long = "x".repeat(3 << 20);
    let error = sandbox
        .run(Program::at(busybox_path()).args([long]), Run::default())
        .unwrap_err();
    assert!(matches!(error, Error::Arguments { .. }), "{error}");
    assert_eq!(busybox(&mut sandbox, &["true"]).exit, ExitStatus::Exited(0));
}
