//! What is left behind, and what is not seen.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Instant;

use microvm_ring3_linux::{Error, ExitStatus, Limits, Program, Run, Sandbox, SandboxOptions};
use microvm_test_support::{assert_no_more, counts};

use crate::assembled::*;
use crate::fixture::*;

pub fn runs_and_sandboxes_see_nothing_of_each_other() {
    let machine = new_machine();
    let options = SandboxOptions::default;
    let run = |sandbox: &mut Sandbox, mode: &str| {
        let program = Program::at(c("hostile")).args([mode]);
        let outcome = sandbox.run(program, Run::default()).unwrap();
        assert_eq!(outcome.exit, ExitStatus::Exited(0), "{mode} {outcome:?}");
    };
    // One after the other, in one sandbox.
    let mut sandbox = Sandbox::on(&machine, options()).unwrap();
    for _ in 0..3 {
        run(&mut sandbox, "secret");
        sandbox.reset().unwrap();
        run(&mut sandbox, "look");
        sandbox.reset().unwrap();
    }
    // Side by side on one machine, one of which gets what the other had.
    for _ in 0..3 {
        let mut one = Sandbox::on(&machine, options()).unwrap();
        let mut other = Sandbox::on(&machine, options()).unwrap();
        run(&mut one, "secret");
        run(&mut other, "look");
        drop(one);
        run(&mut other, "look");
        run(&mut Sandbox::on(&machine, options()).unwrap(), "look");
    }
}

pub fn what_is_at_the_program_s_path_now_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("busybox");
    let mut sandbox = sandbox();
    let mut run = || {
        let program = Program::at(&program).args(["echo", "hello"]);
        sandbox.run(program, Run::default())
    };
    symlink(busybox_path(), &program).unwrap();
    for _ in 0..2 {
        assert_eq!(text(run().unwrap()), "hello\n");
    }
    fs::remove_file(&program).unwrap();
    // mov eax, 231; mov edi, 7; syscall
    let ending = [0xb8, 231, 0, 0, 0, 0xbf, 7, 0, 0, 0, 0x0f, 0x05];
    fs::write(&program, assembled(&ending)).unwrap();
    assert_eq!(run().unwrap().exit, ExitStatus::Exited(7));
    fs::remove_file(&program).unwrap();
    assert!(matches!(run(), Err(Error::Program { .. })));
    symlink(busybox_path(), &program).unwrap();
    assert_eq!(text(run().unwrap()), "hello\n");
}

pub fn sandboxes_run_side_by_side_on_fewer_processors() {
    let machine = new_machine();
    std::thread::scope(|scope| {
        for number in 0..5 {
            let machine = &machine;
            scope.spawn(move || {
                let mut sandbox = Sandbox::on(machine, SandboxOptions::default()).unwrap();
                let script = format!(
                    "i=0; while [ $i -lt 20 ]; do echo {number} > /tmp/$i; i=$((i + 1)); done; \
                     read x < /tmp/19; echo $x"
                );
                for _ in 0..rounds(50, 5) {
                    let program = Program::at(busybox_path()).args(["ash", "-c", &script]);
                    let outcome = sandbox.run(program, Run::default()).unwrap();
                    let output = String::from_utf8(outcome.stdout).unwrap();
                    assert!(
                        output.ends_with(&format!("{number}\n")),
                        "{number}: {output}"
                    );
                    let program = Program::at(busybox_path()).args(["seq", "-s", " ", "300"]);
                    let expected: Vec<String> = (1..=300).map(|n: u32| n.to_string()).collect();
                    let output = text(sandbox.run(program, Run::default()).unwrap());
                    assert_eq!(output.trim_end(), expected.join(" "));
                    sandbox.reset().unwrap();
                }
            });
        }
    });
}

pub fn files_stay_between_runs_and_go_with_a_reset() {
    let mut sandbox = sandbox();
    let script = ["ash", "-c", "echo kept > /tmp/x"];
    text(busybox(&mut sandbox, &script));
    assert_eq!(text(busybox(&mut sandbox, &["cat", "/tmp/x"])), "kept\n");
    sandbox.reset().unwrap();
    assert_eq!(
        busybox(&mut sandbox, &["cat", "/tmp/x"]).exit,
        ExitStatus::Exited(1)
    );
}

pub fn reset_restores_data_that_was_written_and_protections() {
    let mut sandbox = sandbox();
    // mov eax, [DATA]; inc dword [DATA]; exit with what was there
    let mut code = vec![0xa1];
    code.extend(DATA.to_le_bytes());
    code.extend([0xff, 0x04, 0x25]);
    code.extend((DATA as u32).to_le_bytes());
    code.extend(EXIT_WITH_RAX);
    let bytes = assembled(&code);
    let path = tempfile::NamedTempFile::new().unwrap();
    fs::write(path.path(), &bytes).unwrap();
    for _ in 0..20 {
        let outcome = sandbox
            .run(Program::at(path.path()), Run::default())
            .unwrap();
        assert_eq!(outcome.exit, ExitStatus::Exited(0));
    }
}

pub fn memory_that_a_sandbox_leaves_is_counted_for_the_next() {
    let machine = new_machine();
    let run = |limits: Limits| {
        let options = SandboxOptions {
            limits,
            ..SandboxOptions::default()
        };
        let mut sandbox = Sandbox::on(&machine, options).unwrap();
        let program = Program::at(busybox_path()).args(["true"]);
        sandbox.run(program, Run::default())
    };
    let first = run(Limits::default()).unwrap().peak_memory;
    for _ in 0..3 {
        let again = run(Limits::default()).unwrap();
        assert_eq!(again.exit, ExitStatus::Exited(0));
        assert!(again.peak_memory > first / 4 * 3, "{first} {again:?}");
        // What was left is a page more than this one may have.
        let limits = Limits {
            memory: first - 4096,
            ..Limits::default()
        };
        let most = limits.memory;
        match run(limits) {
            Err(error) => assert!(matches!(error, Error::Memory { .. }), "{error}"),
            Ok(outcome) => assert!(outcome.peak_memory <= most, "{outcome:?}"),
        }
        // One that has another stack gets none of it.
        let limits = Limits {
            stack: 1 << 16,
            ..Limits::default()
        };
        assert_eq!(run(limits).unwrap().exit, ExitStatus::Exited(0));
    }
}

pub fn many_sandboxes_leave_nothing_behind() {
    let machine = new_machine();
    let folder = tempfile::tempdir().unwrap();
    let code = [&[0x31, 0xc0][..], &EXIT_WITH_RAX].concat();
    let path = folder.path().join("program");
    fs::write(&path, assembled(&code)).unwrap();
    let round = |rounds: usize| {
        for number in 0..rounds {
            let options = SandboxOptions {
                root: Some(folder.path().to_owned()),
                ..SandboxOptions::default()
            };
            let mut sandbox = Sandbox::on(&machine, options).unwrap();
            if number % 4 != 3 {
                let outcome = sandbox.run(Program::at(&path), Run::default()).unwrap();
                assert_eq!(outcome.exit, ExitStatus::Exited(0));
            }
        }
    };
    round(20);
    let before = counts();
    round(rounds(10_000, 1000));
    assert_no_more(before, [4, 8, 0], PATIENCE / 6);
}

pub fn machines_leave_nothing_behind() {
    let round = || {
        for _ in 0..3 {
            let mut sandbox = Sandbox::on(&new_machine(), SandboxOptions::default()).unwrap();
            text(busybox(&mut sandbox, &["true"]));
        }
        microvm_kvm::reaper::wait_idle();
    };
    round();
    let before = counts();
    round();
    assert_no_more(before, [0, 4, 0], PATIENCE / 6);
}

pub fn figures_of_a_warm_reset_are_printed() {
    let machine = new_machine();
    let code = [&[0x31, 0xc0][..], &EXIT_WITH_RAX].concat();
    // A file that was written just now would be loaded anew for each run.
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("exit-0");
    if !path.exists() {
        fs::write(&path, assembled(&code)).unwrap();
    }
    let median = |mut times: Vec<u128>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let timed = |count: usize, mut once: Box<dyn FnMut() + '_>| {
        let times = (0..count).map(|_| {
            let start = Instant::now();
            once();
            start.elapsed().as_micros()
        });
        median(times.collect())
    };
    let count = rounds(1000, 200);
    let spawn = timed(
        count,
        Box::new(|| {
            assert!(
                std::process::Command::new("/bin/true")
                    .status()
                    .unwrap()
                    .success()
            );
        }),
    );
    let run = |sandbox: &mut Sandbox, path: &std::path::Path| {
        let outcome = sandbox.run(Program::at(path), Run::default()).unwrap();
        assert_eq!(outcome.exit, ExitStatus::Exited(0));
    };
    let mut warm = Sandbox::on(&machine, SandboxOptions::default()).unwrap();
    run(&mut warm, &path);
    let reset = timed(
        count,
        Box::new(|| {
            warm.reset().unwrap();
            run(&mut warm, &path);
        }),
    );
    let mut busy = Sandbox::on(&machine, SandboxOptions::default()).unwrap();
    let glibc = timed(
        count,
        Box::new(|| {
            busy.reset().unwrap();
            text(busybox(&mut busy, &["true"]));
        }),
    );
    let fresh = timed(
        count,
        Box::new(|| {
            let mut sandbox = Sandbox::on(&machine, SandboxOptions::default()).unwrap();
            run(&mut sandbox, &path);
        }),
    );
    eprintln!(
        "posix_spawn and wait {spawn} us; reset and run {reset} us, of busybox true {glibc} us; \
         new sandbox and run {fresh} us"
    );
}
