//! How files are opened, remembered and changed.

use std::os::unix::fs::symlink;
use std::path::Path;

use microvm_test_support::skip;

use super::super::fuse::{RENAME, ROOT, SYMLINK, UNLINK};
use super::super::guest::{mount, mounted_with};
use super::super::mounts::Tmpfs;
use super::super::process::{Daemon, refused, require_root};

pub fn a_read_only_share_takes_no_change() {
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

pub fn a_folder_by_a_link_is_the_folder() {
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

pub fn file_handles_save_descriptors_where_they_are_wanted() {
    require_root("opening by file handle");
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

pub fn direct_access_is_passed_on_when_it_is_allowed() {
    for (args, want) in [(&[][..], false), (&["--allow-direct-io"], true)] {
        let (daemon, mut mounted) = mounted_with(args);
        let file = mounted.lookup(ROOT, "file").unwrap();
        match mounted.open(file.node, libc::O_RDONLY | libc::O_DIRECT) {
            Ok(_) => {}
            Err(libc::EINVAL) if want => {
                skip("the file system of the temporary folder has no O_DIRECT");
            }
            Err(error) => panic!("{error}"),
        }
        let direct = descriptors(&daemon)
            .iter()
            .any(|flags| flags & libc::O_DIRECT != 0);
        assert_eq!(direct, want, "{args:?}");
    }
}

pub fn mount_points_are_told_unless_they_are_not_to_be() {
    const SUBMOUNT: u32 = 1;
    for (args, want) in [
        (&[][..], SUBMOUNT),
        (&["--announce-submounts"], SUBMOUNT),
        (&["--no-announce-submounts"], 0),
        // The later of the two counts.
        (&["--announce-submounts", "--no-announce-submounts"], 0),
        (
            &["--no-announce-submounts", "--announce-submounts"],
            SUBMOUNT,
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("share/below");
        std::fs::create_dir_all(&below).unwrap();
        let _below = Tmpfs::mount(&below, c"");
        let daemon = Daemon::start_in(folder, args, |_| ());
        let flags = mount(&daemon).lookup(ROOT, "below").unwrap().flags;
        assert_eq!(flags & SUBMOUNT, want, "{args:?}");
    }
}

/// A folder without file handles, and with a file that can be opened and gives EIO: what a process has mapped, at an
/// address where there is nothing.
fn a_process() -> String {
    require_root("reading a process's memory, for a file that gives EIO");
    format!("/proc/{}", std::process::id())
}

/// What the daemon needs for that.
const READS_PROCESSES: [&str; 3] = ["--sandbox", "none", "--modcaps=+sys_ptrace"];

fn serve_a_process() -> Daemon {
    let process = a_process();
    let folder = tempfile::tempdir().unwrap();
    Daemon::start_sharing(folder, Path::new(&process), &READS_PROCESSES, |_| ())
}

pub fn errors_of_the_disk_are_told_to_the_guest_and_only_that_request_fails() {
    let daemon = serve_a_process();
    let mut mounted = mount(&daemon);
    let memory = mounted.lookup(ROOT, "mem").unwrap();
    let handle = mounted.open(memory.node, libc::O_RDWR).unwrap();
    let read = mounted.read(memory.node, handle, 0, 4096).unwrap_err();
    assert_eq!(read, libc::EIO);
    let written = mounted.write(memory.node, handle, 0, b"x").unwrap_err();
    assert_eq!(written, libc::EIO);
    mounted.lookup(ROOT, "status").unwrap();
}

pub fn a_file_system_without_handles_is_noticed_where_they_are_preferred_and_refused_where_they_must_be()
 {
    let mut daemon = serve_a_process();
    mount(&daemon).lookup(ROOT, "status").unwrap();
    daemon.wait();
    assert!(
        daemon.log.contains("disabling file handles altogether"),
        "{}",
        daemon.log
    );

    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let socket = socket.to_str().unwrap();
    let (status, text) = refused(
        &[
            &["--shared-dir", &a_process(), "--socket-path", socket][..],
            &READS_PROCESSES,
            &["--inode-file-handles=mandatory"],
        ]
        .concat(),
    );
    assert_eq!(status, Some(1));
    assert!(
        text.contains("Failed to create internal filesystem representation"),
        "{text}"
    );
}

pub fn what_a_guest_has_not_written_yet_is_not_called_a_hole() {
    const HOLE: u64 = 1 << 20;
    for (args, data, hole) in [
        (&[][..], Ok(HOLE), Ok(0)),
        // The driver takes that for a file without holes, and does not ask again.
        (&["--writeback"], Err(libc::ENOSYS), Err(libc::ENOSYS)),
    ] {
        let (_daemon, mut mounted) = mounted_with(args);
        let (file, handle) = mounted.create(ROOT, "sparse").unwrap();
        mounted.write(file.node, handle, HOLE, b"data").unwrap();
        let found = |whence| mounted.seek(file.node, handle, 0, whence);
        assert_eq!([libc::SEEK_DATA, libc::SEEK_HOLE].map(found), [data, hole]);
    }
}

pub fn delayed_writes_can_read_what_they_complete() {
    for (args, want) in [(&[][..], libc::O_WRONLY), (&["--writeback"], libc::O_RDWR)] {
        let (daemon, mut mounted) = mounted_with(args);
        let file = mounted.lookup(ROOT, "file").unwrap();
        let before = descriptors(&daemon);
        mounted
            .open(file.node, libc::O_WRONLY | libc::O_APPEND)
            .unwrap();
        let mut opened = descriptors(&daemon);
        for flags in before {
            opened.remove(opened.iter().position(|other| *other == flags).unwrap());
        }
        let [flags] = opened[..] else {
            panic!("{opened:?}");
        };
        assert_eq!(flags & libc::O_ACCMODE, want, "{args:?}");
        // The guest says where it writes.
        assert_eq!(flags & libc::O_APPEND, 0, "{args:?}");
    }
}
