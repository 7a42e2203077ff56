//! Single files that lie where it is hard: the host's root folder, and folders that the daemon needs itself.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;

use super::driver::Driver;
use super::fuse::{Mounted, ROOT};
use super::process::{Daemon, require_root};

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// Has a command see `root` as its root folder, with the folders of this host's in it.
fn in_root(command: &mut Command, root: &Path) {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir("/").unwrap() {
        let entry = entry.unwrap();
        let place = root.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            symlink(std::fs::read_link(entry.path()).unwrap(), place).unwrap();
        } else if kind.is_dir() {
            std::fs::create_dir(&place).unwrap();
            folders.push((c(&entry.path()), c(&place)));
        }
    }
    let root = c(root);
    let enter = move || {
        let mount = |source: *const libc::c_char, target: *const libc::c_char, flags| {
            // SAFETY: null or strings that live through the call.
            check(unsafe { libc::mount(source, target, ptr::null(), flags, ptr::null()) }.into())
        };
        let bind = libc::MS_BIND | libc::MS_REC;
        // SAFETY: takes a number only.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())?;
        mount(ptr::null(), c"/".as_ptr(), libc::MS_REC | libc::MS_PRIVATE)?;
        mount(root.as_ptr(), root.as_ptr(), libc::MS_BIND)?;
        for (source, target) in &folders {
            mount(source.as_ptr(), target.as_ptr(), bind)?;
        }
        // SAFETY: a string that lives through the call.
        check(unsafe { libc::chdir(root.as_ptr()) }.into())?;
        let here = c".".as_ptr();
        // SAFETY: two strings.
        check(unsafe { libc::syscall(libc::SYS_pivot_root, here, here) })?;
        // SAFETY: a string.
        check(unsafe { libc::umount2(here, libc::MNT_DETACH) }.into())
    };
    // SAFETY: system calls with what was made before the fork.
    unsafe { command.pre_exec(enter) };
}

fn check(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

pub fn a_file_in_the_root_folder_of_the_host_is_shared_and_stays_as_it_is() {
    require_root("another root folder");
    for args in [&["--readonly"][..], &[]] {
        let root = tempfile::tempdir().unwrap();
        let victim = root.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let daemon = Daemon::start_sharing(folder, Path::new("/victim"), args, |command| {
            in_root(command, root.path());
        });
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
        let file = mounted.lookup(ROOT, "victim").unwrap();
        let handle = mounted.open(file.node, libc::O_RDONLY).unwrap();
        let read = mounted.read(file.node, handle, 0, 99).unwrap();
        assert_eq!(read, b"precious");
        assert_eq!(mounted.lookup(ROOT, "usr").unwrap_err(), libc::ENOENT);
        assert_eq!(mounted.create(ROOT, "new").unwrap_err(), libc::EROFS);
        // The host's own file systems are as writable as before.
        std::fs::write(root.path().join("another"), "").unwrap();
        drop(mounted);
        drop(daemon);
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    }
}

pub fn a_file_may_lie_in_any_folder() {
    for path in ["/etc/passwd", "/proc/version", "/sys/kernel/uevent_seqnum"] {
        if !Path::new(path).is_file() {
            microvm_test_support::skip(format!("{path} is not here"));
        }
        let folder = tempfile::tempdir().unwrap();
        let daemon = Daemon::start_sharing(folder, Path::new(path), &["--readonly"], |_| ());
        let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        let file = mounted.lookup(ROOT, name).unwrap();
        let handle = mounted.open(file.node, libc::O_RDONLY).unwrap();
        let read = mounted.read(file.node, handle, 0, 4096).unwrap();
        assert!(!read.is_empty(), "{path}");
    }
}
