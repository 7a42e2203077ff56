//! Whose files they are: the guest's users and the host's.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use microvm_test_support::skip;
use tempfile::TempDir;

use super::super::fuse::{Caller, ROOT, me};
use super::super::guest::{mount, mounted_with};
use super::super::process::{Daemon, require_root};

pub fn user_ids_are_translated() {
    let me = me();
    let map = format!("map:4000:{}:1", me.uid);
    let groups = format!("map:4000:{}:1", me.gid);
    let (daemon, mut mounted) = mounted_with(&[
        "--translate-uid",
        &map,
        "--translate-gid",
        &groups,
        "--translate-uid",
        "forbid-guest:5000:1",
    ]);
    assert_eq!(mounted.lookup(ROOT, "file").unwrap().uid, 4000);
    mounted.caller = Caller {
        uid: 4000,
        gid: 4000,
    };
    mounted.create(ROOT, "mine").unwrap();
    assert_eq!(
        daemon.share().join("mine").metadata().unwrap().uid(),
        me.uid
    );
    mounted.caller = Caller {
        uid: 5000,
        gid: 4000,
    };
    assert!(mounted.create(ROOT, "not-mine").is_err());
}

pub fn requests_act_as_the_guests_user_where_the_daemon_is_root() {
    require_root("files of other users");
    let (daemon, mut mounted) = mounted_with(&[]);
    std::fs::set_permissions(
        daemon.share(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    mounted.caller = Caller {
        uid: 1234,
        gid: 1235,
    };
    mounted.create(ROOT, "theirs").unwrap();
    let theirs = daemon.share().join("theirs").metadata().unwrap();
    assert_eq!((theirs.uid(), theirs.gid()), (1234, 1235));
    // Without the capability the same is refused.
    let (_daemon, mut mounted) = mounted_with(&["--modcaps=-setuid"]);
    mounted.caller = Caller { uid: 1234, gid: 0 };
    assert_eq!(mounted.create(ROOT, "theirs").unwrap_err(), libc::EPERM);
}

pub fn every_kind_of_translation_goes_the_ways_that_it_says() {
    require_root("files of other users");
    // A rule; who makes a file in the guest, and whose it is here; whose a file here is, and whose it is there.
    for (rule, made, seen) in [
        ("map:1000:3000:10", (1009, Ok(3009)), (3009, 1009)),
        ("guest:1000:3000:10", (1005, Ok(3005)), (3005, 3005)),
        ("host:3000:1000:10", (3004, Ok(3004)), (3004, 1004)),
        ("squash-guest:1000:3000:10", (1007, Ok(3000)), (3000, 3000)),
        ("squash-host:3000:1000:10", (3007, Ok(3007)), (3007, 1000)),
        ("forbid-guest:1000:10", (1009, Err(libc::EIO)), (1009, 1009)),
        // One beyond the range.
        ("squash-guest:1000:3000:10", (1010, Ok(1010)), (1010, 1010)),
        ("forbid-guest:1000:10", (1010, Ok(1010)), (1010, 1010)),
    ] {
        let args = ["--translate-uid", rule, "--translate-gid", rule];
        let (daemon, mut mounted) = mounted_with(&args);
        std::fs::set_permissions(daemon.share(), PermissionsExt::from_mode(0o777)).unwrap();
        let (uid, owner) = made;
        mounted.caller = Caller { uid, gid: uid };
        let created = mounted.create(ROOT, "made").map(|_| {
            let made = daemon.share().join("made").metadata().unwrap();
            assert_eq!(made.uid(), made.gid());
            made.uid()
        });
        assert_eq!(created, owner, "{rule}");
        let (here, there) = seen;
        chown(daemon.share().join("file"), Some(here), Some(here)).unwrap();
        let file = mounted.lookup(ROOT, "file").unwrap();
        assert_eq!((file.uid, file.gid), (there, there), "{rule}");
    }
}

const NOBODY: u32 = 65534;

/// A folder that an ordinary user shares, and that all may write to.
fn folder_of_nobody() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let share = folder.path().join("share");
    std::fs::create_dir(&share).unwrap();
    chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    chown(&share, Some(NOBODY), Some(NOBODY)).unwrap();
    for path in [folder.path(), &share] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    }
    folder
}

fn map_of(daemon: &Daemon, kind: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/{kind}", daemon.server())).unwrap();
    let lines = text.lines();
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

pub fn an_ordinary_user_is_who_its_map_says_in_its_namespace() {
    require_root("becoming an ordinary user");
    let args = ["--uid-map", ":0:65534:1:", "--gid-map", ":0:65534:1:"];
    let daemon = Daemon::start_in(folder_of_nobody(), &args, |command| {
        command.uid(NOBODY).gid(NOBODY);
    });
    assert_eq!(map_of(&daemon, "uid_map"), ["0 65534 1"]);
    assert_eq!(map_of(&daemon, "gid_map"), ["0 65534 1"]);
    let mut mounted = mount(&daemon);
    mounted.caller = Caller { uid: 0, gid: 0 };
    mounted.create(ROOT, "mine").unwrap();
    let mine = daemon.share().join("mine").metadata().unwrap();
    assert_eq!((mine.uid(), mine.gid()), (NOBODY, NOBODY));
}

/// Has a program see `file` in the place of `path`, and run as an ordinary user.
fn as_nobody_with(command: &mut Command, places: &[(PathBuf, &str)]) {
    let places: Vec<_> = places
        .iter()
        .map(|(file, path)| {
            let file = CString::new(file.to_str().unwrap()).unwrap();
            (file, CString::new(*path).unwrap())
        })
        .collect();
    let checked = |result: i32| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let enter = move || {
        // SAFETY: takes a number only.
        checked(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        let none = std::ptr::null();
        let private = libc::MS_REC | libc::MS_PRIVATE;
        // SAFETY: a string that lives through the call, and nothing where nothing is asked for.
        checked(unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) })?;
        for (file, path) in &places {
            let (from, to) = (file.as_ptr(), path.as_ptr());
            // SAFETY: two strings that live through the call.
            checked(unsafe { libc::mount(from, to, none, libc::MS_BIND, none.cast()) })?;
        }
        // SAFETY: no groups.
        checked(unsafe { libc::setgroups(0, none.cast()) })?;
        // SAFETY: takes a number only.
        checked(unsafe { libc::setgid(NOBODY) })?;
        // SAFETY: takes a number only.
        checked(unsafe { libc::setuid(NOBODY) })
    };
    // SAFETY: system calls only.
    unsafe { command.pre_exec(enter) };
}

pub fn ranges_of_users_are_mapped_where_the_host_grants_them() {
    require_root("granting an ordinary user a range of users");
    for needed in [
        "/usr/bin/newuidmap",
        "/usr/bin/newgidmap",
        "/etc/subuid",
        "/etc/subgid",
    ] {
        if !Path::new(needed).exists() {
            skip(format!("{needed} is not here (package uidmap)"));
        }
    }
    let folder = folder_of_nobody();
    let granted = folder.path().join("granted");
    std::fs::write(&granted, "65534:100000:1000\n").unwrap();
    let args = [
        ["--uid-map", ":0:65534:1:"],
        ["--uid-map", ":1:100000:1000:"],
        ["--gid-map", ":0:65534:1:"],
        ["--gid-map", ":1:100000:1000:"],
    ]
    .concat();
    let places = [(granted.clone(), "/etc/subuid"), (granted, "/etc/subgid")];
    let daemon = Daemon::start_in(folder, &args, |command| as_nobody_with(command, &places));
    for kind in ["uid_map", "gid_map"] {
        assert_eq!(map_of(&daemon, kind), ["0 65534 1", "1 100000 1000"]);
    }
    let mut mounted = mount(&daemon);
    mounted.caller = Caller { uid: 5, gid: 6 };
    mounted.create(ROOT, "theirs").unwrap();
    let theirs = daemon.share().join("theirs").metadata().unwrap();
    assert_eq!((theirs.uid(), theirs.gid()), (100_004, 100_005));
}
