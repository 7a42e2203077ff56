//! Limits, timeouts and interrupts.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use microvm_ring3_linux::{
    ExitStatus, Input, Limit, Limits, Outcome, Output, Program, Run, SandboxOptions,
};

use crate::fixture::*;

fn run_with(limits: Limits, mode: &str) -> Outcome {
    let mut sandbox = sandbox_with(SandboxOptions {
        limits,
        ..SandboxOptions::default()
    });
    let program = Program::at(c("hostile")).args([mode]);
    sandbox.run(program, Run::default()).unwrap()
}

fn assert_ended_by(outcome: &Outcome, limit: Limit) {
    assert_eq!(outcome.limit, Some(limit), "{outcome:?}");
    assert_eq!(outcome.exit, ExitStatus::Signaled(9));
}

pub fn processor_time_ends_a_spin_and_a_storm_of_calls() {
    for mode in ["spin", "calls"] {
        let limits = Limits {
            cpu_time: Some(Duration::from_millis(200)),
            ..Limits::default()
        };
        let outcome = run_with(limits, mode);
        assert_ended_by(&outcome, Limit::CpuTime);
        assert!(outcome.cpu_time >= Duration::from_millis(200));
        assert!(!outcome.timed_out);
    }
}

pub fn waiting_is_no_processor_time() {
    // Loading the program takes its time there.
    let seconds = if is_emulated() { 5 } else { 1 };
    let most = Duration::from_millis(400) * seconds;
    let mut sandbox = sandbox_with(SandboxOptions {
        limits: Limits {
            cpu_time: Some(most),
            ..Limits::default()
        },
        ..SandboxOptions::default()
    });
    let outcome = busybox(&mut sandbox, &["sleep", &seconds.to_string()]);
    assert_eq!(outcome.exit, ExitStatus::Exited(0), "{outcome:?}");
    assert!(outcome.wall_time >= Duration::from_secs(seconds.into()));
    assert!(outcome.cpu_time < most);
}

pub fn wall_time_ends_spins_calls_sleeps_and_waits() {
    for mode in [
        "spin",
        "calls",
        "sleep",
        "read-pipe",
        "fill-pipe",
        "pause",
        "futex",
        "poll",
    ] {
        let limits = Limits {
            wall_time: Some(Duration::from_millis(200)),
            ..Limits::default()
        };
        let outcome = run_with(limits, mode);
        assert_ended_by(&outcome, Limit::WallTime);
        assert!(
            outcome.timed_out && outcome.wall_time >= Duration::from_millis(200),
            "{mode}"
        );
        assert!(
            outcome.wall_time < Duration::from_secs(60),
            "{mode} {outcome:?}"
        );
    }
}

pub fn timeout_of_a_run_counts_where_it_is_shorter() {
    let mut sandbox = sandbox();
    let run = Run {
        timeout: Some(Duration::from_millis(100)),
        ..Run::default()
    };
    let outcome = sandbox
        .run(Program::at(c("hostile")).args(["spin"]), run)
        .unwrap();
    assert!(outcome.timed_out);
    // The next one has all the time it wants.
    assert_eq!(text(busybox(&mut sandbox, &["echo", "x"])), "x\n");
}

pub fn memory_ends_programs_that_touch_more() {
    let limits = Limits {
        memory: 4 << 20,
        ..Limits::default()
    };
    // What is asked for is refused; what was promised and cannot be had ends the program.
    for (mode, ends) in [
        ("malloc", false),
        ("touch", true),
        ("maps", false),
        ("sparse", true),
        ("file", false),
        ("files", false),
        ("folders", false),
        ("pipes", false),
        ("break", false),
    ] {
        let outcome = run_with(limits, mode);
        if ends {
            assert_ended_by(&outcome, Limit::Memory);
        } else {
            assert_eq!(text(outcome.clone()), "refused\n", "{mode}");
        }
        assert!(
            outcome.peak_memory <= 4 << 20,
            "{mode}: {}",
            outcome.peak_memory
        );
    }
}

pub fn output_ends_at_its_limit() {
    let limits = Limits {
        output_bytes: 100_000,
        ..Limits::default()
    };
    let outcome = run_with(limits, "output");
    assert_ended_by(&outcome, Limit::Output);
    assert_eq!(outcome.stdout.len() + outcome.stderr.len(), 100_000);
}

pub fn open_files_are_limited() {
    let limits = Limits {
        open_files: 10,
        ..Limits::default()
    };
    assert_eq!(text(run_with(limits, "descriptors")), "7\n");
}

pub fn interrupts_end_runs_whatever_they_do() {
    for mode in ["spin", "calls", "sleep", "read-pipe"] {
        for round in 0..5u64 {
            let mut sandbox = sandbox();
            let interrupter = sandbox.interrupter();
            let thread = thread::spawn(move || {
                // Some come before the program, some while it is loaded, most while it runs.
                thread::park_timeout(Duration::from_millis(round * 15));
                interrupter.interrupt();
            });
            let program = Program::at(c("hostile")).args([mode]);
            let outcome = sandbox.run(program, Run::default()).unwrap();
            assert!(outcome.interrupted, "{mode} {outcome:?}");
            assert_eq!(outcome.exit, ExitStatus::Signaled(9));
            thread.join().unwrap();
            assert_eq!(text(busybox(&mut sandbox, &["echo", "x"])), "x\n");
        }
    }
}

pub fn reset_takes_an_interrupt_back() {
    let mut sandbox = sandbox();
    sandbox.interrupter().interrupt();
    assert!(busybox(&mut sandbox, &["true"]).interrupted);
    sandbox.interrupter().interrupt();
    sandbox.reset().unwrap();
    assert!(!busybox(&mut sandbox, &["true"]).interrupted);
}

pub fn descriptors_of_the_host_are_waited_for() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (mut back, output) = std::io::pipe().unwrap();
    let thread = thread::spawn(move || {
        for part in ["one\n", "two\n"] {
            thread::park_timeout(Duration::from_millis(30));
            writer.write_all(part.as_bytes()).unwrap();
        }
    });
    let run = Run {
        stdin: Input::Descriptor(reader.into()),
        stdout: Output::Descriptor(output.into()),
        ..Run::default()
    };
    let mut sandbox = sandbox();
    let program = Program::at(busybox_path()).args(["sed", "s/o/O/"]);
    let outcome = sandbox.run(program, run).unwrap();
    assert_eq!(outcome.exit, ExitStatus::Exited(0), "{outcome:?}");
    thread.join().unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut back, &mut text).unwrap();
    assert_eq!(text, "One\ntwO\n");
}

pub fn full_pipe_and_silent_stdin_end_with_the_run() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let (_back, output) = std::io::pipe().unwrap();
    let start = Instant::now();
    let run = |stdin, stdout| Run {
        stdin,
        stdout,
        timeout: Some(Duration::from_millis(200)),
        ..Run::default()
    };
    let mut sandbox = sandbox();
    let program = Program::at(busybox_path()).args(["cat"]);
    let silent = run(Input::Descriptor(reader.into()), Output::Collect);
    assert!(sandbox.run(program, silent).unwrap().timed_out);
    let program = Program::at(c("hostile")).args(["output"]);
    let full = run(Input::Empty, Output::Descriptor(output.into()));
    assert!(sandbox.run(program, full).unwrap().timed_out);
    assert!(start.elapsed() < PATIENCE);
}

pub fn writers_get_what_is_written_and_may_fail() {
    struct Failing;
    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut sandbox = sandbox();
    let mut text = Vec::new();
    let run = Run {
        stdout: Output::Writer(Box::new(&mut text)),
        ..Run::default()
    };
    sandbox
        .run(Program::at(busybox_path()).args(["seq", "3"]), run)
        .unwrap();
    assert_eq!(text, b"1\n2\n3\n");
    let run = Run {
        stdout: Output::Writer(Box::new(Failing)),
        ..Run::default()
    };
    let outcome = sandbox
        .run(Program::at(busybox_path()).args(["seq", "3"]), run)
        .unwrap();
    assert_ne!(outcome.exit, ExitStatus::Exited(0));
}
