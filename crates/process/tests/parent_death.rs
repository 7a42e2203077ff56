//! A helper dies with its owner, also when the owner is killed without a chance to clean up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::env;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};

use microvm_process::{SpawnOptions, spawn};

const MARK: &str = "HELPER_PID=";

fn pidfd_of(pid: i32) -> OwnedFd {
    // SAFETY: the call takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us alone.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
}

fn ends_within(pidfd: &OwnedFd, milliseconds: i32) -> bool {
    let mut poll = libc::pollfd {
        fd: pidfd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry is given and counted.
    unsafe { libc::poll(&raw mut poll, 1, milliseconds) == 1 }
}

/// The owner's part, run in a process of its own by the test below.
#[test]
#[ignore = "a role in the test below"]
fn owner() {
    // Started from a thread that ends at once: the helper has to outlive it.
    let child = std::thread::spawn(|| {
        let mut options = SpawnOptions::new("/bin/cat");
        options.args = vec!["/dev/zero".into()];
        spawn(options).unwrap()
    })
    .join()
    .unwrap();
    println!("{MARK}{}", child.pid());
    child.wait();
}

#[test]
fn a_helper_dies_when_its_owner_is_killed_but_not_when_the_starting_thread_ends() {
    let mut owner = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "owner", "--nocapture"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    // libtest may print the test's name in front of the mark.
    let pid = lines
        .find_map(|line| {
            line.unwrap()
                .split_once(MARK)
                .map(|(_, pid)| pid.parse().unwrap())
        })
        .expect("The owner should tell the number of its helper");
    let helper = pidfd_of(pid);
    assert!(
        !ends_within(&helper, 0),
        "The helper should outlive the thread that asked for it"
    );

    owner.kill().unwrap();
    owner.wait().unwrap();

    assert!(
        ends_within(&helper, 20_000),
        "The helper should have died with its owner"
    );
}
