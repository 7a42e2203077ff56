//! What the process may do, and how much of it.

use std::os::unix::process::CommandExt;

use super::super::fuse::ROOT;
use super::super::guest::mount;
use super::super::process::{Daemon, require_root, status_of};

const CAP_SYS_RESOURCE: u64 = 1 << 24;

pub fn capabilities_are_those_that_were_asked_for_and_no_others_can_come_back() {
    require_root("capabilities");
    let kept = |args: &[&str]| {
        let daemon = Daemon::start(args);
        let server = daemon.server();
        for set in ["CapInh", "CapAmb", "CapBnd"] {
            assert_eq!(status_of(server, set), "0000000000000000", "{set}");
        }
        let effective = status_of(server, "CapEff");
        assert_eq!(effective, status_of(server, "CapPrm"));
        u64::from_str_radix(&effective, 16).unwrap()
    };
    let needed = 0x8800_00db;
    let read_search = 1 << 2;
    assert_eq!(kept(&["--inode-file-handles=never"]), needed);
    assert_eq!(kept(&[]), needed | read_search);
    let changed = kept(&["--inode-file-handles=never", "--modcaps=+sys_admin:-chown"]);
    assert_eq!(changed, needed & !1 | 1 << 21);
}

pub fn seccomp_is_in_force_unless_it_is_not_wanted() {
    for (action, want) in [("kill", "2"), ("trap", "2"), ("log", "2"), ("none", "0")] {
        let daemon = Daemon::start(&["--seccomp", action]);
        assert_eq!(status_of(daemon.server(), "Seccomp"), want, "{action}");
        let mut mounted = mount(&daemon);
        mounted.create(ROOT, "file").unwrap();
    }
}

/// The limit of open files of a process: what counts, and what it may be raised to.
fn open_files(process: &str) -> [u64; 2] {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.unwrap().split_whitespace().map(|n| n.parse().unwrap());
    [numbers.next().unwrap(), numbers.next().unwrap()]
}

/// The limit that a daemon has, started with these limits of its own.
fn limit_of_one(args: &[&str], limits: [u64; 2]) -> (u64, String) {
    let [rlim_cur, rlim_max] = limits;
    let mut daemon = Daemon::start_in(tempfile::tempdir().unwrap(), args, |command| {
        let limit = libc::rlimit { rlim_cur, rlim_max };
        let set = move || {
            // SAFETY: a value that lives through the call.
            match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: setrlimit is async-signal-safe.
        unsafe { command.pre_exec(set) };
    });
    let [now, _] = open_files(&daemon.server().to_string());
    (now, std::mem::take(&mut daemon.log))
}

pub fn the_limit_of_open_files_is_what_was_asked_for() {
    let [_, most] = open_files("self");
    let limits = [1500, most];
    assert_eq!(limit_of_one(&["--rlimit-nofile", "2000"], limits).0, 2000);
    assert_eq!(limit_of_one(&["--rlimit-nofile", "0"], limits).0, 1500);
}

/// The limit that the daemon tries to have, by itself.
fn a_million() -> u64 {
    let kernels = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap();
    1_000_000.min(kernels.trim().parse().unwrap())
}

/// Whether this user may go beyond a limit that was set.
fn raises_limits() -> bool {
    let capabilities = status_of(std::process::id(), "CapEff");
    u64::from_str_radix(&capabilities, 16).unwrap() & CAP_SYS_RESOURCE != 0
}

pub fn the_limit_of_open_files_is_a_million_or_what_is_possible() {
    let want = a_million();
    let [_, most] = open_files("self");
    let possible = if raises_limits() {
        want
    } else {
        most.min(want)
    };
    let (limit, log) = limit_of_one(&[], [1024, most.min(want)]);
    assert_eq!(limit, possible, "{log}");
    assert_eq!(log.contains("hard limit"), possible < want, "{log}");
    // One that is higher already is left.
    if most > want {
        assert_eq!(limit_of_one(&[], [want + 1, want + 1]).0, want + 1);
    }
}

pub fn the_limit_of_open_files_is_the_hard_one_where_no_more_is_possible() {
    let (limit, log) = limit_of_one(&[], [1024, 3000]);
    let raises = raises_limits();
    assert_eq!(limit, if raises { a_million() } else { 3000 }, "{log}");
    assert_eq!(log.contains("the hard limit (3000)"), !raises, "{log}");
}

pub fn a_guest_that_has_all_of_its_open_files_is_told_and_gets_more_when_it_forgets_some() {
    // 609 and one for the thread are the daemon's.
    let args = ["--rlimit-nofile", "620", "--inode-file-handles=never"];
    let daemon = Daemon::start(&args);
    for index in 0..20 {
        std::fs::write(daemon.share().join(index.to_string()), "").unwrap();
    }
    let mut mounted = mount(&daemon);
    let mut held = Vec::new();
    let full = (0..20).find_map(|index| match mounted.lookup(ROOT, &index.to_string()) {
        Ok(entry) => {
            held.push(entry.node);
            None
        }
        Err(error) => Some(error),
    });
    assert_eq!(full, Some(libc::ENFILE));
    assert!((5..=10).contains(&held.len()), "{}", held.len());
    mounted.forget(held[0]);
    mounted.lookup(ROOT, "19").unwrap();
}
