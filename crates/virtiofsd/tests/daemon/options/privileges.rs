//! What the process may do, and how much of it.

use super::super::fuse::ROOT;
use super::super::guest::mount;
use super::super::process::{Daemon, require_root, status_of};

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

pub fn the_limit_of_open_files_is_what_was_asked_for() {
    let limit = |args: &[&str]| {
        let daemon = Daemon::start(args);
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.server())).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .unwrap();
        line.split_whitespace().nth(3).unwrap().to_owned()
    };
    assert_eq!(limit(&["--rlimit-nofile", "2000"]), "2000");
    let here = std::fs::read_to_string("/proc/self/limits").unwrap();
    let here = here
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let here = here.split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(limit(&["--rlimit-nofile", "0"]), here);
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
