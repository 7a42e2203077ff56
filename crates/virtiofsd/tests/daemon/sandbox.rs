//! Nothing outside the shared folder can be reached; and other users, full disks and single files.

use std::ffi::CString;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;

use super::fuse::{MKDIR, MKNOD, Mounted, OPEN, READLINK, RENAME, ROOT, SYMLINK, UNLINK};
use super::guest::mount;
use super::mounts::Tmpfs;
use super::process::{Daemon, is_root, require_root};

pub fn links_to_the_outside_are_told_and_never_followed() {
    for sandbox in ["namespace", "chroot", "none"] {
        if sandbox == "chroot" && !is_root() {
            continue;
        }
        let daemon = Daemon::start(&["--sandbox", sandbox]);
        std::fs::write(daemon.folder.path().join("secret"), "secret").unwrap();
        for (name, target) in [
            ("up", "../secret"),
            ("host", "/etc/passwd"),
            ("proc", "/proc/self/root"),
        ] {
            symlink(target, daemon.share().join(name)).unwrap();
            let mut mounted = mount_again(&daemon, sandbox);
            let link = mounted.lookup(ROOT, name).unwrap();
            assert_eq!(link.mode & libc::S_IFMT, libc::S_IFLNK);
            assert_eq!(
                mounted.call(READLINK, link.node, &[]).unwrap(),
                target.as_bytes()
            );
            assert!(
                mounted.call(OPEN, link.node, &[0; 8]).is_err(),
                "{sandbox} {name}"
            );
            // A link is no folder.
            assert!(
                mounted.lookup(link.node, "etc").is_err(),
                "{sandbox} {name}"
            );
        }
    }
}

/// A front end each; the daemon above does not reconnect, so each gets its own.
fn mount_again(daemon: &Daemon, sandbox: &str) -> Mounted {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--sandbox", sandbox];
    let again = Daemon::start_sharing(folder, &daemon.share(), &args, |_| ());
    let mounted = mount(&again);
    // It ends with the connection, and takes its files along.
    std::mem::forget(again);
    mounted
}

pub fn names_that_are_paths_reach_nothing_even_without_a_sandbox() {
    let daemon = Daemon::start(&["--sandbox", "none"]);
    let outside = daemon.folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    std::fs::create_dir(daemon.share().join("folder")).unwrap();
    std::fs::write(daemon.share().join("file"), "").unwrap();
    let mut mounted = mount(&daemon);
    for name in [
        "../outside/secret",
        "folder/../../outside/secret",
        "folder/x",
        "/etc/passwd",
    ] {
        assert_eq!(mounted.lookup(ROOT, name).unwrap_err(), libc::EINVAL);
        assert_eq!(mounted.create(ROOT, name).unwrap_err(), libc::EINVAL);
        let name = [name.as_bytes(), &[0]].concat();
        for (opcode, before, after) in [
            (UNLINK, &[][..], &[][..]),
            (MKDIR, &[0; 8], &[]),
            (MKNOD, &[0; 16], &[]),
            (SYMLINK, &[], b"target\0"),
            (RENAME, &[1, 0, 0, 0, 0, 0, 0, 0], b"taken\0"),
            (
                RENAME,
                &[1, 0, 0, 0, 0, 0, 0, 0, b'f', b'i', b'l', b'e', 0],
                &[],
            ),
        ] {
            let body = [before, &name, after].concat();
            let error = mounted.call(opcode, ROOT, &body).unwrap_err();
            assert_eq!(error, libc::EINVAL, "{opcode}");
        }
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(daemon.share()).unwrap().count(), 2);
}

pub fn a_server_sees_the_share_as_its_root_and_no_other_process() {
    require_root("a look at the server's root folder");
    let daemon = Daemon::start(&[]);
    std::fs::write(daemon.share().join("only"), "").unwrap();
    let server = daemon.server();
    let root = format!("/proc/{server}/root");
    let names: Vec<_> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["only"]);
    for kind in ["mnt", "pid", "net"] {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(of(&server.to_string()), of("self"), "{kind}");
    }
    let daemon = Daemon::start(&["--sandbox", "chroot"]);
    let root = std::fs::metadata(format!("/proc/{}/root/", daemon.server())).unwrap();
    assert_eq!(root.ino(), daemon.share().metadata().unwrap().ino());
}

pub fn a_folder_that_is_swapped_for_a_link_while_it_is_looked_up_leads_nowhere() {
    // Nothing but the lookup itself keeps the link from being followed: it leads somewhere here.
    let daemon = Daemon::start(&["--sandbox", "none"]);
    let share = daemon.share();
    let outside = daemon.folder.path().join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    std::fs::create_dir(share.join("inside")).unwrap();
    std::fs::write(share.join("inside/secret"), "harmless").unwrap();
    symlink(&outside, share.join("link")).unwrap();
    let c = |path: &Path| CString::new(path.to_str().unwrap()).unwrap();
    let (folder, link) = (c(&share.join("inside")), c(&share.join("link")));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut mounted = mount(&daemon);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // SAFETY: two strings.
                unsafe {
                    libc::renameat2(
                        libc::AT_FDCWD,
                        folder.as_ptr(),
                        libc::AT_FDCWD,
                        link.as_ptr(),
                        libc::RENAME_EXCHANGE,
                    )
                };
            }
        });
        let mut found = 0;
        let mut linked = 0;
        for _ in 0..2000 {
            let Ok(entry) = mounted.lookup(ROOT, "inside") else {
                continue;
            };
            let Ok(secret) = mounted.lookup(entry.node, "secret") else {
                linked += 1;
                continue;
            };
            found += 1;
            let handle = mounted.open(secret.node, libc::O_RDONLY).unwrap();
            assert_eq!(
                mounted.read(secret.node, handle, 0, 99).unwrap(),
                b"harmless"
            );
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        // Otherwise this has tried nothing.
        assert!(found > 0 && linked > 0, "{found} {linked}");
    });
}

pub fn an_ordinary_user_serves_its_files_from_a_namespace() {
    require_root("becoming an ordinary user; the other tests run as one already");
    let folder = tempfile::tempdir().unwrap();
    let share = folder.path().join("share");
    std::fs::create_dir(&share).unwrap();
    for path in [folder.path(), &share] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let daemon = Daemon::start_in(folder, &[], |command| {
        command.uid(65534).gid(65534);
    });
    let server = daemon.server();
    let mut mounted = mount(&daemon);
    let (file, handle) = mounted.create(ROOT, "file").unwrap();
    mounted.write(file.node, handle, 0, b"mine").unwrap();
    assert_eq!(daemon.share().join("file").metadata().unwrap().uid(), 65534);
    let user = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_ne!(user(&server.to_string()), user("self"));
    // The files of others stay theirs.
    std::fs::write(daemon.share().join("others"), "x").unwrap();
    std::fs::set_permissions(
        daemon.share().join("others"),
        PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let others = mounted.lookup(ROOT, "others").unwrap();
    assert_eq!(
        mounted.open(others.node, libc::O_RDONLY).unwrap_err(),
        libc::EACCES
    );
}

pub fn noatime_is_left_away_where_it_would_fail_unless_it_is_to_be_kept() {
    require_root("becoming an ordinary user");
    for (args, want) in [
        (&[][..], None),
        (&["--preserve-noatime"], Some(libc::EPERM)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let share = folder.path().join("share");
        std::fs::create_dir(&share).unwrap();
        std::fs::write(share.join("others"), "x").unwrap();
        for path in [folder.path(), &share] {
            std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let daemon = Daemon::start_in(folder, args, |command| {
            command.uid(65534).gid(65534);
        });
        let mut mounted = mount(&daemon);
        let others = mounted.lookup(ROOT, "others").unwrap();
        let opened = mounted.open(others.node, libc::O_RDONLY | libc::O_NOATIME);
        assert_eq!(opened.err(), want, "{args:?}");
    }
}

pub fn an_ordinary_user_is_told_why_there_is_no_chroot() {
    require_root("becoming an ordinary user");
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
    let output = super::process::command()
        .arg("--shared-dir")
        .arg(folder.path())
        .arg("--socket-path")
        .arg(folder.path().join("socket"))
        .args(["--sandbox", "chroot"])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("'chroot' can only be used by root (Use '--sandbox namespace' instead)"),
        "{text}"
    );
}

pub fn a_full_disk_is_told_to_the_guest() {
    require_root("a small file system");
    let folder = tempfile::tempdir().unwrap();
    let share = folder.path().join("share");
    std::fs::create_dir(&share).unwrap();
    let small = Tmpfs::mount(&share, c"size=64k");
    let daemon = Daemon::start_in(folder, &[], |_| ());
    let mut guest = mount(&daemon);
    let (file, handle) = guest.create(ROOT, "file").unwrap();
    let block = vec![1; 16384];
    let full = (0..8).find_map(|n| guest.write(file.node, handle, n * 16384, &block).err());
    assert_eq!(full, Some(libc::ENOSPC));
    drop((guest, daemon, small));
}

pub fn a_single_file_is_shared_alone_in_a_folder_that_takes_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("one.txt");
    std::fs::write(&file, "one").unwrap();
    std::fs::write(folder.path().join("other.txt"), "other").unwrap();
    let daemon = Daemon::start_sharing(folder, &file, &[], |_| ());
    let mut mounted = mount(&daemon);
    let one = mounted.lookup(ROOT, "one.txt").unwrap();
    let handle = mounted.open(one.node, libc::O_RDWR).unwrap();
    assert_eq!(mounted.read(one.node, handle, 0, 99).unwrap(), b"one");
    mounted.write(one.node, handle, 3, b" more").unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one more");
    assert_eq!(mounted.lookup(ROOT, "other.txt").unwrap_err(), libc::ENOENT);
    assert_eq!(mounted.create(ROOT, "new").unwrap_err(), libc::EROFS);
}
