//! Ends that nobody asked for: what is said of them, and that nothing outlives them.

use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

use super::driver::{Driver, PATIENCE};
use super::fuse::Mounted;
use super::process::{Daemon, send, status_of};

fn assert_no_files(daemon: &Daemon) {
    assert!(!daemon.socket().exists() && !daemon.pid_file().exists());
}

pub fn a_server_that_dies_by_a_signal_is_told_with_it() {
    // The first process of a namespace gets no other signal from outside that it has no handler for.
    for (sandbox, signal) in [
        ("namespace", libc::SIGKILL),
        ("none", libc::SIGKILL),
        ("none", libc::SIGSYS),
    ] {
        let mut daemon = Daemon::start(&["--sandbox", sandbox]);
        let _mounted = Mounted::mount(Driver::start(&daemon.socket()));
        send(daemon.server(), signal);
        assert_eq!(daemon.ends_in_time().code(), Some(128 + signal));
        let said = format!("Child process terminated by signal {signal}");
        assert_eq!(daemon.log.matches(&said).count(), 1, "{}", daemon.log);
        assert_no_files(&daemon);
    }
}

pub fn a_front_end_that_speaks_something_else_is_a_failure() {
    let mut daemon = Daemon::start(&[]);
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.write_all(&[0xff; 64]).unwrap();
    assert_eq!(daemon.ends_in_time().code(), Some(1));
    assert!(daemon.log.contains("ERROR"), "{}", daemon.log);
    assert!(daemon.log.contains("Waiting for daemon failed: "));
    assert_no_files(&daemon);
}

pub fn a_server_is_missed_also_where_sigchld_is_ignored() {
    let mut daemon = Daemon::start_in(tempfile::tempdir().unwrap(), &[], |command| {
        let ignore = || {
            // SAFETY: no handler.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            Ok(())
        };
        // SAFETY: signal is async-signal-safe.
        unsafe { command.pre_exec(ignore) };
    });
    send(daemon.server(), libc::SIGKILL);
    assert_eq!(daemon.ends_in_time().code(), Some(128 + libc::SIGKILL));
    assert_no_files(&daemon);
}

fn watch(pid: u32) -> OwnedFd {
    // SAFETY: takes numbers only.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: the kernel has just made it.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(number).unwrap()) }
}

/// Whether a process ends within so many milliseconds.
fn ends(process: &OwnedFd, patience: i32) -> bool {
    let mut polled = libc::pollfd {
        fd: process.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, as is said.
    unsafe { libc::poll(&raw mut polled, 1, patience) == 1 }
}

pub fn nothing_of_a_daemon_that_has_ended_runs_on() {
    let mut daemon = Daemon::start(&[]);
    let number = daemon.server();
    let supervisor = watch(daemon.child.id());
    let server = watch(number);
    let between = watch(parent_of(number));
    // It hears of the end only when it goes on.
    send(number, libc::SIGSTOP);
    daemon.signal(libc::SIGTERM);
    assert!(ends(&between, PATIENCE));
    assert!(!ends(&supervisor, 300), "it does not wait for its server");
    assert!(daemon.socket().exists());
    send(number, libc::SIGCONT);
    assert_eq!(daemon.ends_in_time().code(), Some(1));
    assert!(ends(&server, 0), "the server outlives its daemon");
    assert_no_files(&daemon);
}

fn parent_of(pid: u32) -> u32 {
    status_of(pid, "PPid").parse().unwrap()
}
