//! Starting, ending and reaping helpers, with real processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use microvm_process::{Child, ExitStatus, SpawnError, SpawnOptions, Stdio, spawn};

const PATIENCE: Duration = Duration::from_secs(20);

fn shell(script: &str) -> SpawnOptions {
    let mut options = SpawnOptions::new("/bin/sh");
    options.args = vec![OsString::from("-c"), OsString::from(script)];
    options
}

fn read_all(fd: OwnedFd) -> String {
    let mut text = String::new();
    File::from(fd).read_to_string(&mut text).unwrap();
    text
}

fn end_of(child: &Child) -> ExitStatus {
    child
        .wait_timeout(PATIENCE)
        .expect("The helper should have ended")
}

/// Runs a script with its standard output captured and returns what it wrote.
fn output_of(mut options: SpawnOptions) -> String {
    options.stdout = Stdio::Capture;
    let mut child = spawn(options).unwrap();
    let text = read_all(child.take_stdout().unwrap());
    assert_eq!(end_of(&child), ExitStatus::Exited(0));
    text
}

fn proc_status_field(status: &str, field: &str) -> String {
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

#[test]
fn exit_codes_and_signals_are_told_apart() {
    assert_eq!(
        end_of(&spawn(shell("exit 7")).unwrap()),
        ExitStatus::Exited(7)
    );
    assert_eq!(
        end_of(&spawn(shell("kill -9 $$")).unwrap()),
        ExitStatus::Signaled(libc::SIGKILL)
    );
}

#[test]
fn waiting_again_and_from_many_threads_gives_the_same_status() {
    let child = spawn(shell("exit 3")).unwrap();
    std::thread::scope(|scope| {
        let waits: Vec<_> = (0..4).map(|_| scope.spawn(|| child.wait())).collect();
        for wait in waits {
            assert_eq!(wait.join().unwrap(), ExitStatus::Exited(3));
        }
    });
    assert_eq!(child.try_wait(), Some(ExitStatus::Exited(3)));
}

#[test]
fn a_signal_ends_a_helper_and_a_late_one_is_no_error() {
    let child = spawn(shell("exec cat /dev/zero")).unwrap();
    assert_eq!(child.try_wait(), None);
    child.kill(libc::SIGTERM).unwrap();
    assert_eq!(end_of(&child), ExitStatus::Signaled(libc::SIGTERM));
    child.kill(libc::SIGTERM).unwrap();
}

#[test]
fn a_number_that_is_no_signal_is_refused() {
    let child = spawn(shell("exec cat /dev/zero")).unwrap();
    assert_eq!(
        child.kill(-1).unwrap_err().raw_os_error(),
        Some(libc::EINVAL)
    );
    child.kill(libc::SIGKILL).unwrap();
    end_of(&child);
}

#[test]
fn a_missing_program_is_a_typed_error_with_enoent() {
    let error = spawn(SpawnOptions::new("/nowhere/at-all")).unwrap_err();
    let SpawnError::Execute { program, source } = error else {
        panic!("{error}")
    };
    assert_eq!(program.to_str(), Some("/nowhere/at-all"));
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_program_that_may_not_be_executed_is_a_typed_error_with_eacces() {
    let error = spawn(SpawnOptions::new("/etc/passwd")).unwrap_err();
    let SpawnError::Execute { source, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_missing_working_folder_is_told_from_a_missing_program() {
    let mut options = SpawnOptions::new("/bin/true");
    options.cwd = Some("/nowhere".into());
    let error = spawn(options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Cannot change into the working folder for /bin/true"
    );
}

#[test]
fn strings_with_a_nul_byte_are_refused() {
    let mut options = SpawnOptions::new("/bin/true");
    options.args = vec![OsString::from("a\0b")];
    assert!(matches!(
        spawn(options),
        Err(SpawnError::NulByte { what: "argument" })
    ));
}

#[test]
fn a_descriptor_number_given_twice_is_refused() {
    let mut options = SpawnOptions::new("/bin/true");
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    options.fds = vec![(null(), 5), (null(), 5)];
    assert!(matches!(
        spawn(options),
        Err(SpawnError::TargetDescriptor(5))
    ));
}

#[test]
fn a_program_without_a_slash_is_found_by_the_path_of_its_own_environment() {
    let mut options = SpawnOptions::new("sh");
    options.args = vec!["-c".into(), "echo $GREETING".into()];
    options.env = Some(vec![
        ("PATH".into(), "/nowhere:/etc/passwd:/bin".into()),
        ("GREETING".into(), "hello".into()),
    ]);
    assert_eq!(output_of(options), "hello\n");
}

#[test]
fn the_environment_is_exactly_the_given_one() {
    let mut options = SpawnOptions::new("/usr/bin/env");
    options.env = Some(vec![("ONLY".into(), "this=one".into())]);
    assert_eq!(output_of(options), "ONLY=this=one\n");
}

#[test]
fn only_the_chosen_descriptors_are_passed_at_their_numbers() {
    // A stray descriptor without O_CLOEXEC, as a careless library leaves them.
    let stray = File::open("/etc/passwd").unwrap();
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::fcntl(stray.as_raw_fd(), libc::F_SETFD, 0) };
    assert_eq!(result, 0);

    let mut options = shell("echo /proc/self/fd/*; cat <&9; cat <&4");
    let (nine, mut nine_writer) = io::pipe().unwrap();
    let (four, mut four_writer) = io::pipe().unwrap();
    nine_writer.write_all(b"nine\n").unwrap();
    four_writer.write_all(b"four\n").unwrap();
    drop((nine_writer, four_writer));
    options.fds = vec![(nine.into(), 9), (four.into(), 4)];

    let output = output_of(options);
    let mut lines = output.lines();
    // 3 is the folder that the shell itself reads to expand the star.
    assert_eq!(
        lines.next().unwrap().replace("/proc/self/fd/", ""),
        "0 1 2 3 4 9"
    );
    assert_eq!(lines.collect::<Vec<_>>(), ["nine", "four"]);
}

#[test]
fn descriptors_whose_numbers_cross_are_not_mixed_up() {
    let (first, mut first_writer) = io::pipe().unwrap();
    let (second, mut second_writer) = io::pipe().unwrap();
    first_writer.write_all(b"first\n").unwrap();
    second_writer.write_all(b"second\n").unwrap();
    drop((first_writer, second_writer));
    let (first_number, second_number) = (first.as_raw_fd(), second.as_raw_fd());

    let mut options = shell(&format!(
        "cat /proc/self/fd/{second_number} /proc/self/fd/{first_number}"
    ));
    options.fds = vec![(first.into(), second_number), (second.into(), first_number)];

    assert_eq!(output_of(options), "first\nsecond\n");
}

#[test]
fn nothing_of_a_spawn_stays_open_in_the_parent() {
    spawn(shell(":")).unwrap().wait();
    let marked = || {
        // Other tests of this process open and close descriptors meanwhile: look for our own file only.
        let links = fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links
            .filter(|target| target.ends_with("microvm-process-leak-test"))
            .count()
    };
    let path = std::env::temp_dir().join("microvm-process-leak-test");
    let mut options = shell("exit 0");
    options.fds = vec![(File::create(&path).unwrap().into(), 7)];
    options.stderr = Stdio::Fd(File::create(&path).unwrap().into());
    let child = spawn(options).unwrap();
    assert_eq!(marked(), 0);
    end_of(&child);
    let mut failing = SpawnOptions::new("/nowhere");
    failing.fds = vec![(File::create(&path).unwrap().into(), 7)];
    spawn(failing).unwrap_err();
    assert_eq!(marked(), 0);
    fs::remove_file(path).unwrap();
}

#[test]
fn signals_are_at_their_defaults_and_the_process_leads_its_own_group() {
    // Rust's runtime ignores SIGPIPE in this very process, which a plain exec would hand on.
    let mut options = SpawnOptions::new("/bin/cat");
    options.args = vec!["/proc/self/status".into(), "/proc/self/stat".into()];
    let output = output_of(options);

    assert_eq!(proc_status_field(&output, "SigIgn"), "0000000000000000");
    assert_eq!(proc_status_field(&output, "SigBlk"), "0000000000000000");
    assert_eq!(proc_status_field(&output, "ShdPnd"), "0000000000000000");
    let stat = output.lines().last().unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let pid = proc_status_field(&output, "Pid");
    assert_eq!(fields[2], pid, "The process group should be its own");
}

#[test]
fn standard_input_can_be_captured_too() {
    let mut options = SpawnOptions::new("/bin/cat");
    options.stdin = Stdio::Capture;
    options.stdout = Stdio::Capture;
    let mut child = spawn(options).unwrap();
    let mut stdin = File::from(child.take_stdin().unwrap());
    stdin.write_all(b"there and back").unwrap();
    drop(stdin);
    assert_eq!(read_all(child.take_stdout().unwrap()), "there and back");
    assert!(child.take_stdin().is_none());
}

#[test]
fn a_dropped_child_runs_on_and_leaves_no_zombie() {
    let mut options = shell("read line; exit 5");
    options.stdin = Stdio::Capture;
    let mut child = spawn(options).unwrap();
    let stdin = child.take_stdin().unwrap();
    let pid = child.pid();
    // A second handle on its end that does not go through the crate.
    let pidfd = child.pidfd().try_clone_to_owned().unwrap();
    drop(child);
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());

    drop(stdin);
    let mut poll = libc::pollfd {
        fd: pidfd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry is given and counted.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 20_000) }, 1);
    // Requests and ends are served by one thread in turn, ends that were ready before included: when a later helper
    // has come and gone, this one was reaped.
    end_of(&spawn(shell(":")).unwrap());
    end_of(&spawn(shell(":")).unwrap());
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
}

#[test]
fn failed_starts_leave_no_zombie() {
    for _ in 0..20 {
        spawn(SpawnOptions::new("/nowhere")).unwrap_err();
    }
    let children = fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let children = children.collect::<String>();
    // Helpers that other tests start at this moment look the same: what one thread serves in turn
    // is over when a later helper has come and gone.
    end_of(&spawn(shell(":")).unwrap());
    for pid in children.split_whitespace() {
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        assert!(!command.starts_with("microvm-spawner"), "{pid} is left");
    }
}

#[test]
fn many_threads_can_start_helpers_at_once() {
    std::thread::scope(|scope| {
        for code in 0..16 {
            scope.spawn(move || {
                for _ in 0..8 {
                    assert_eq!(
                        end_of(&spawn(shell(&format!("exit {code}"))).unwrap()),
                        ExitStatus::Exited(code)
                    );
                }
            });
        }
    });
}
