//! The kernel's file systems, where every program expects them.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::console::note;

struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    options: &'static str,
}

const NO_SUID_DEV_EXEC: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);
const NO_SUID_DEV: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
const NO_SUID_EXEC: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);

/// In the order in which they can be mounted: some lie in others.
const MOUNTS: [Mount; 8] = [
    Mount {
        kind: "proc",
        target: "/proc",
        flags: NO_SUID_DEV_EXEC,
        options: "",
    },
    Mount {
        kind: "sysfs",
        target: "/sys",
        flags: NO_SUID_DEV_EXEC,
        options: "",
    },
    Mount {
        kind: "devtmpfs",
        target: "/dev",
        flags: MsFlags::MS_NOSUID,
        options: "mode=0755",
    },
    // Group 5 is tty in every distribution; ptmxmode lets ordinary users open terminals.
    Mount {
        kind: "devpts",
        target: "/dev/pts",
        flags: NO_SUID_EXEC,
        options: "gid=5,mode=620,ptmxmode=666",
    },
    Mount {
        kind: "tmpfs",
        target: "/dev/shm",
        flags: NO_SUID_DEV,
        options: "mode=1777",
    },
    Mount {
        kind: "tmpfs",
        target: "/tmp",
        flags: NO_SUID_DEV,
        options: "mode=1777",
    },
    Mount {
        kind: "tmpfs",
        target: "/run",
        flags: NO_SUID_DEV,
        options: "mode=0755",
    },
    Mount {
        kind: "cgroup2",
        target: "/sys/fs/cgroup",
        flags: NO_SUID_DEV_EXEC,
        options: "",
    },
];

/// devtmpfs holds devices only; shells rely on these names too.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts all of them. What the kernel does not have is noted on the console and left out.
pub(crate) fn mount_all() {
    for entry in &MOUNTS {
        // Within sysfs the folder is the kernel's to make; the error of `mount` then tells more.
        let _ = fs::create_dir_all(entry.target);
        match mount(
            Some(entry.kind),
            entry.target,
            Some(entry.kind),
            entry.flags,
            Some(entry.options),
        ) {
            // EBUSY: mounted already, by the kernel (CONFIG_DEVTMPFS_MOUNT).
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => note(format_args!(
                "cannot mount {} on {}: {errno}",
                entry.kind, entry.target
            )),
        }
    }
    for (target, link) in LINKS {
        match symlink(target, link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                note(format_args!("cannot link {link} to {target}: {error}"));
            }
            _ => {}
        }
    }
}
