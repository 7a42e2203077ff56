//! What each option changes, and what is refused.

use std::os::unix::fs::{MetadataExt, symlink};

use super::driver::Driver;
use super::fuse::{Caller, Mounted, RENAME, ROOT, SYMLINK, UNLINK};
use super::process::{Daemon, command, is_root, refused, status_of};

fn mount(daemon: &Daemon) -> Mounted {
    Mounted::mount(Driver::start(&daemon.socket()))
}

/// What a guest is told with these options.
fn mounted_with(args: &[&str]) -> (Daemon, Mounted) {
    let daemon = Daemon::start(args);
    std::fs::write(daemon.share().join("file"), "content").unwrap();
    let mounted = mount(&daemon);
    (daemon, mounted)
}

#[test]
fn wrong_usage_ends_with_status_2_and_says_what_is_wrong() {
    let share = ["--shared-dir", "/tmp", "--socket-path", "/nowhere/socket"];
    let with = |more: &[&'static str]| [&share[..], more].concat();
    for (args, want) in [
        (vec!["--socket-path", "/tmp/s"], "--shared-dir <SHARED_DIR>"),
        (vec!["--shared-dir", "/tmp"], "--socket"),
        (with(&["--fd", "3"]), "cannot be used with"),
        (
            vec!["--shared-dir", "/", "--fd", "3", "--socket-group", "a"],
            "cannot be used with",
        ),
        (
            with(&["--tag", ""]),
            "The tag may not be empty or longer than 36 bytes (encoded as UTF-8).",
        ),
        (
            with(&["--tag", "1234567890123456789012345678901234567"]),
            "longer than 36 bytes",
        ),
        (with(&["--cache", "none"]), "invalid cache policy"),
        (with(&["--cache", "sometimes"]), "invalid cache policy"),
        (with(&["--sandbox", "bubble"]), "Unknown sandbox mode"),
        (with(&["--seccomp", "maybe"]), "Matching variant not found"),
        (
            with(&["--inode-file-handles=often"]),
            "invalid inode file handles mode",
        ),
        (
            with(&["--inode-file-handles", "never"]),
            "equal sign is needed",
        ),
        (
            with(&["--posix-acl=sometimes"]),
            "invalid mode, expected: never, auto, always",
        ),
        (
            with(&["--security-label=sometimes"]),
            "invalid mode, expected: never, auto, always",
        ),
        (
            with(&["--xattrmap", "nonsense"]),
            "invalid value 'nonsense'",
        ),
        (with(&["--log-level", "loud"]), "invalid value 'loud'"),
        (with(&["--request-queues", "0"]), "0 is not in 1..=63"),
        (with(&["--request-queues", "64"]), "64 is not in 1..=63"),
        (with(&["--thread-pool-size", "-1"]), "unexpected argument"),
        (with(&["--rlimit-nofile", "many"]), "invalid digit"),
        (with(&["--uid-map", "1:2:3"]), "invalid value"),
        (with(&["--translate-uid", "some:1:2:3"]), "invalid value"),
        (
            with(&["--migration-mode", "guess"]),
            "invalid migration-mode value",
        ),
        (with(&["--migration-on-error", "cry"]), "invalid"),
        (
            with(&["-o", "cache=never"]),
            "Invalid compat value 'never' for '-o cache'",
        ),
        (
            with(&["-o", "loglevel=loud"]),
            "Invalid compat value 'loud' for '-o loglevel'",
        ),
        (
            with(&["-o", "sandbox=none"]),
            "Invalid compat value 'none' for '-o sandbox'",
        ),
        (
            with(&["-o", "xattrmap=nonsense"]),
            "Invalid compat value 'nonsense' for '-o xattrmap'",
        ),
        (
            with(&["-o", "no_announce_submounts"]),
            "Invalid compat argument '-o no_announce_submounts'",
        ),
        (with(&["-o", "flock"]), "Invalid compat argument '-o flock'"),
        (
            with(&["-o", "colour=red"]),
            "Invalid compat argument '-o colour=red'",
        ),
        (
            with(&["--unheard-of"]),
            "unexpected argument '--unheard-of'",
        ),
    ] {
        let (code, text) = refused(&args);
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains(want), "{args:?}: {text}");
    }
}

#[test]
fn what_does_not_go_together_ends_with_status_1_and_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let share = folder.path().to_str().unwrap();
    let socket = folder.path().join("socket");
    let socket = socket.to_str().unwrap();
    let with =
        |more: &[&'static str]| [&["--shared-dir", share, "--socket-path", socket], more].concat();
    let mut cases = vec![
        (
            vec!["--socket-path", socket, "-o", "xattr"],
            "missing \"--shared-dir\" or \"-o source\" option",
        ),
        (
            vec!["--shared-dir", "/no/where", "--socket-path", socket],
            "/no/where does not exist",
        ),
        (
            vec!["--shared-dir", share, "--socket-path", "/no/where/s"],
            "/no/where does not exist or is not a directory",
        ),
        (
            vec!["--shared-dir", share, "--socket-path", "/"],
            "Invalid socket file name",
        ),
        (
            vec![
                "--shared-dir",
                file,
                "--socket-path",
                socket,
                "--sandbox",
                "chroot",
            ],
            "A single file cannot be shared with --sandbox=chroot",
        ),
        (
            vec!["--shared-dir", share, "--fd", "0"],
            "it is no listening socket",
        ),
        (
            with(&[
                "--migration-mode",
                "file-handles",
                "--migration-confirm-paths",
            ]),
            "Cannot use --migration-confirm-paths with --migration-mode=file-handles",
        ),
        (
            with(&[
                "--migration-mode",
                "file-handles",
                "--migration-verify-handles",
            ]),
            "Cannot use --migration-verify-handles with --migration-mode=file-handles",
        ),
        (
            with(&["--posix-acl", "--translate-uid", "map:0:0:1"]),
            "with --posix-acl=always, translating",
        ),
        (
            with(&["--posix-acl=auto", "--translate-gid", "map:0:0:1"]),
            "with --posix-acl=auto, translating",
        ),
        (
            with(&["--socket-group", "no-such-group"]),
            "Couldn't resolve the group name",
        ),
        (
            with(&["--modcaps", "chown"]),
            "invalid modcap action: expecting '+'|'-' but found 'c'",
        ),
        (with(&["--modcaps", "+chown:"]), "empty modcap found"),
        (with(&["--modcaps", "+fly"]), "invalid capability 'FLY'"),
        (
            with(&["--modcaps=-dac_read_search"]),
            "can't disable DAC_READ_SEARCH when using --inode-file-handles=prefer",
        ),
        (with(&["--rlimit-nofile", "600"]), "must be at least 610"),
        (
            with(&["--rlimit-nofile", "18446744073709551615"]),
            "It cannot be increased above",
        ),
    ];
    if is_root("mappings, which are for other users") {
        cases.push((
            with(&["--uid-map", ":0:0:1:"]),
            "uid_map can only be used by unprivileged user",
        ));
        cases.push((
            with(&["--gid-map", ":0:0:1:"]),
            "gid_map can only be used by unprivileged user",
        ));
    } else {
        cases.push((
            with(&["--sandbox", "chroot"]),
            "'chroot' can only be used by root",
        ));
    }
    for (args, want) in cases {
        let (code, text) = refused(&args);
        assert_eq!(code, Some(1), "{args:?}: {text}");
        assert!(text.contains(want), "{args:?}: {text}");
        assert!(!std::path::Path::new(socket).exists(), "{args:?}");
        assert!(!folder.path().join("socket.pid").exists(), "{args:?}");
    }
}

#[test]
fn a_file_in_the_sockets_place_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine");
    std::fs::write(&file, "precious").unwrap();
    let share = folder.path().to_str().unwrap();
    let (code, text) = refused(&[
        "--shared-dir",
        share,
        "--socket-path",
        file.to_str().unwrap(),
    ]);
    assert_eq!(code, Some(1));
    assert!(text.contains("Error creating listener"), "{text}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
}

#[test]
fn cache_policies_give_their_times() {
    for (policy, seconds) in [
        ("never", 0),
        ("auto", 1),
        ("metadata", 86400),
        ("always", 86400),
    ] {
        let (_daemon, mut mounted) = mounted_with(&["--cache", policy]);
        assert_eq!(
            mounted.lookup(ROOT, "file").unwrap().valid,
            seconds,
            "{policy}"
        );
    }
}

const READDIRPLUS: u64 = 1 << 13;
const WRITEBACK: u64 = 1 << 16;
const POSIX_ACL: u64 = 1 << 20;
const SUBMOUNTS: u64 = 1 << 27;
const KILLPRIV_V2: u64 = 1 << 28;
const SECURITY_CTX: u64 = 1 << 32;
const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;

#[test]
fn options_show_in_what_is_agreed_with_the_guest() {
    for (args, present, absent) in [
        (
            &[][..],
            READDIRPLUS | SUBMOUNTS,
            WRITEBACK | POSIX_ACL | KILLPRIV_V2 | SECURITY_CTX,
        ),
        (&["--no-readdirplus"], 0, READDIRPLUS),
        (&["--cache", "never"], 0, READDIRPLUS),
        (&["--writeback"], WRITEBACK, 0),
        (
            &["--cache", "never", "--allow-mmap"],
            DIRECT_IO_ALLOW_MMAP,
            0,
        ),
        (&["--cache", "never"], 0, DIRECT_IO_ALLOW_MMAP),
        (&["--posix-acl"], POSIX_ACL, 0),
        (&["--posix-acl=auto"], POSIX_ACL, 0),
        (&["--killpriv-v2"], KILLPRIV_V2, 0),
        (&["--security-label"], SECURITY_CTX, 0),
        (
            &["-o", "writeback,no_readdirplus,posix_acl"],
            WRITEBACK | POSIX_ACL,
            READDIRPLUS,
        ),
        (
            &["-o", "killpriv_v2,security_label,no_flock,no_posix_lock"],
            KILLPRIV_V2 | SECURITY_CTX,
            0,
        ),
        (&["--writeback", "-o", "no_writeback"], 0, WRITEBACK),
    ] {
        let (_daemon, mounted) = mounted_with(args);
        assert_eq!(
            mounted.flags & present,
            present,
            "{args:?} {:x}",
            mounted.flags
        );
        assert_eq!(mounted.flags & absent, 0, "{args:?} {:x}", mounted.flags);
    }
}

#[test]
fn extended_attributes_are_there_when_asked_for_and_renamed_when_mapped() {
    let (_daemon, mut mounted) = mounted_with(&[]);
    let file = mounted.lookup(ROOT, "file").unwrap();
    assert_eq!(
        mounted.set_xattr(file.node, "user.a", b"x").unwrap_err(),
        libc::ENOSYS
    );

    let (_daemon, mut mounted) = mounted_with(&["--xattr"]);
    let file = mounted.lookup(ROOT, "file").unwrap();
    mounted.set_xattr(file.node, "user.a", b"x").unwrap();
    assert_eq!(mounted.get_xattr(file.node, "user.a").unwrap(), b"x");

    let (daemon, mut mounted) = mounted_with(&["--xattrmap", ":map::user.virtiofs.:"]);
    let file = mounted.lookup(ROOT, "file").unwrap();
    mounted.set_xattr(file.node, "trusted.b", b"y").unwrap();
    assert_eq!(mounted.get_xattr(file.node, "trusted.b").unwrap(), b"y");
    let path = std::ffi::CString::new(daemon.share().join("file").to_str().unwrap()).unwrap();
    let name = c"user.virtiofs.trusted.b";
    // SAFETY: two strings, and no buffer where the length is 0.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    assert_eq!(length, 1);
}

#[test]
fn a_read_only_share_takes_no_change() {
    let (daemon, mut mounted) = mounted_with(&["--readonly"]);
    let file = mounted.lookup(ROOT, "file").unwrap();
    assert_eq!(
        mounted.open(file.node, libc::O_RDWR).unwrap_err(),
        libc::EROFS
    );
    assert_eq!(mounted.create(ROOT, "new").unwrap_err(), libc::EROFS);
    assert_eq!(
        mounted.call(UNLINK, ROOT, b"file\0").unwrap_err(),
        libc::EROFS
    );
    let mut rename = ROOT.to_le_bytes().to_vec();
    rename.extend(b"file\0other\0");
    assert_eq!(
        mounted.call(RENAME, ROOT, &rename).unwrap_err(),
        libc::EROFS
    );
    assert_eq!(
        mounted.call(SYMLINK, ROOT, b"link\0file\0").unwrap_err(),
        libc::EROFS
    );
    let handle = mounted.open(file.node, libc::O_RDONLY).unwrap();
    assert_eq!(mounted.read(file.node, handle, 0, 99).unwrap(), b"content");
    assert_eq!(std::fs::read_dir(daemon.share()).unwrap().count(), 1);
}

#[test]
fn user_ids_are_translated() {
    let me = super::fuse::me();
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

#[test]
fn requests_act_as_the_guests_user_where_the_daemon_is_root() {
    if !is_root("files of other users") {
        return;
    }
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

#[test]
fn capabilities_are_those_that_were_asked_for_and_no_others_can_come_back() {
    if !is_root("capabilities") {
        return;
    }
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

#[test]
fn seccomp_is_in_force_unless_it_is_not_wanted() {
    for (action, want) in [("kill", "2"), ("trap", "2"), ("log", "2"), ("none", "0")] {
        let daemon = Daemon::start(&["--seccomp", action]);
        assert_eq!(status_of(daemon.server(), "Seccomp"), want, "{action}");
        let mut mounted = mount(&daemon);
        mounted.create(ROOT, "file").unwrap();
    }
}

#[test]
fn the_limit_of_open_files_is_what_was_asked_for() {
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

#[test]
fn log_levels_are_followed_and_the_environment_has_precedence() {
    let log = |args: &[&str], variable: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = Daemon::start_in(folder, args, |command| {
            if let Some(value) = variable {
                command.env("RUST_LOG", value);
            }
        });
        drop(mount(&daemon));
        daemon.wait();
        daemon.log.clone()
    };
    assert!(!log(&[], None).contains("DEBUG"));
    assert!(log(&["--log-level", "debug"], None).contains("Received request"));
    let old = log(&["-d", "-f"], None);
    assert!(old.contains("Received request"), "{old}");
    assert!(
        old.contains("Use of deprecated flag '-d'") && old.contains("Use of deprecated flag '-f'")
    );
    assert!(log(&["-o", "loglevel=debug"], None).contains("Use of deprecated option format '-o'"));
    assert!(log(&[], Some("debug")).contains("Received request"));
    assert!(!log(&["--log-level", "debug"], Some("info")).contains("Received request"));
    let fallback = log(&["--inode-file-handles=fallback"], None);
    assert!(
        fallback.contains("Use of deprecated value 'fallback'"),
        "{fallback}"
    );
}

#[test]
fn the_old_names_of_the_socket_and_the_folder_still_work() {
    let folder = tempfile::tempdir().unwrap();
    let source = format!("source={}", folder.path().display());
    let socket = folder.path().join("old");
    let mut child = command()
        .args(["-o", &source, "--log-level", "off"])
        .arg("--socket")
        .arg(&socket)
        .env("RUST_LOG", "info")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("Waiting for vhost-user") {
        assert_ne!(
            std::io::BufRead::read_line(&mut log, &mut text).unwrap(),
            0,
            "{text}"
        );
    }
    assert!(
        text.contains("use of deprecated parameter '--socket'"),
        "{text}"
    );
    drop(Mounted::mount(Driver::start(&socket)));
    assert!(child.wait().unwrap().success());
}

#[test]
fn its_capabilities_for_management_software_are_printed_alone() {
    let output = command()
        .args(["--print-capabilities", "--log-level", "debug"])
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    for word in [
        "\"type\": \"fs\"",
        "migrate-precopy",
        "posix-acl-negotiation-mode",
        "separate-options",
    ] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn a_folder_by_a_link_is_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().join("real");
    std::fs::create_dir(&real).unwrap();
    std::fs::write(real.join("file"), "").unwrap();
    let link = folder.path().join("link");
    symlink(&real, &link).unwrap();
    let daemon = Daemon::start_sharing(folder, &link, &[], |_| ());
    mount(&daemon).lookup(ROOT, "file").unwrap();
}

/// Descriptors of the process that serves, with the flags of each.
fn descriptors(daemon: &Daemon) -> Vec<i32> {
    let folder = format!("/proc/{}/fdinfo", daemon.server());
    let flags = std::fs::read_dir(folder).unwrap().map(|entry| {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("flags:"));
        i32::from_str_radix(line.unwrap().trim(), 8).unwrap()
    });
    flags.collect()
}

#[test]
fn file_handles_save_descriptors_where_they_are_wanted() {
    if !is_root("opening by file handle") {
        return;
    }
    let held = |mode| {
        let daemon = Daemon::start(&[mode]);
        for index in 0..50 {
            std::fs::write(daemon.share().join(index.to_string()), "").unwrap();
        }
        let mut mounted = mount(&daemon);
        let before = descriptors(&daemon).len();
        for index in 0..50 {
            mounted.lookup(ROOT, &index.to_string()).unwrap();
        }
        descriptors(&daemon).len() - before
    };
    assert_eq!(held("--inode-file-handles=never"), 50);
    assert!(held("--inode-file-handles=prefer") < 10);
    assert!(held("--inode-file-handles=mandatory") < 10);
}

#[test]
fn direct_access_is_passed_on_when_it_is_allowed() {
    for (args, want) in [(&[][..], false), (&["--allow-direct-io"], true)] {
        let (daemon, mut mounted) = mounted_with(args);
        let file = mounted.lookup(ROOT, "file").unwrap();
        match mounted.open(file.node, libc::O_RDONLY | libc::O_DIRECT) {
            Ok(_) => {}
            Err(libc::EINVAL) if want => {
                eprintln!("not tried: the file system of the temporary folder has no O_DIRECT");
                continue;
            }
            Err(error) => panic!("{error}"),
        }
        let direct = descriptors(&daemon)
            .iter()
            .any(|flags| flags & libc::O_DIRECT != 0);
        assert_eq!(direct, want, "{args:?}");
    }
}

#[test]
fn mount_points_are_told_unless_they_are_not_to_be() {
    if !is_root("mounting") {
        return;
    }
    const SUBMOUNT: u32 = 1;
    for (args, want) in [(&[][..], SUBMOUNT), (&["--no-announce-submounts"], 0)] {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("share/below");
        std::fs::create_dir_all(&below).unwrap();
        let target = std::ffi::CString::new(below.to_str().unwrap()).unwrap();
        let tmpfs = c"tmpfs".as_ptr();
        // SAFETY: strings that live through the call, and no options.
        let mounted = unsafe { libc::mount(tmpfs, target.as_ptr(), tmpfs, 0, std::ptr::null()) };
        if mounted != 0 {
            eprintln!(
                "not tried: no mounts here ({})",
                std::io::Error::last_os_error()
            );
            return;
        }
        let daemon = Daemon::start_in(folder, args, |_| ());
        let flags = mount(&daemon).lookup(ROOT, "below").unwrap().flags;
        // SAFETY: a string that lives through the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        assert_eq!(flags & SUBMOUNT, want, "{args:?}");
    }
}
