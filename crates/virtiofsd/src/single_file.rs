//! A folder that has one file and nothing else, and that cannot get anything else. A guest's kernel mounts folders
//! only, so this is how a single file is shared.
//!
//! The folder is a small file system of this process's own mount namespace. Nothing is made by a path: between any two
//! steps a path may come to mean something else, and to `/` itself nothing can be laid over for the process whose root
//! it is. So the file system is made apart from any folder, and everything in it is reached through its descriptor.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr;

use crate::error::Error;

/// What the file's folder is laid over, the first that there is: the daemon needs nothing of them. A host's root folder
/// without any of them has the file's own folder left.
const PLACES: [&str; 4] = ["/sys", "/mnt", "/run", "/tmp"];
const ATTRIBUTES: libc::c_ulong = libc::MS_NODEV | libc::MS_NOSUID | libc::MS_NOEXEC;

/// Makes the folder; hands back its path, which leads there in this process and its children.
pub fn folder_of(path: &Path) -> Result<String, Error> {
    let failed = |step| move |source| Error::SingleFile { step, source };
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let path = path.canonicalize().map_err(failed("its path"))?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed("its path")(invalid()));
    };
    let name = CString::new(name.as_bytes()).map_err(|_| failed("its path")(invalid()))?;
    let place = PLACES
        .map(Path::new)
        .into_iter()
        .chain([folder])
        .find(|place| place.is_dir() && *place != Path::new("/"))
        .and_then(Path::to_str)
        .ok_or_else(|| failed("a folder to lay it over")(io::ErrorKind::NotFound.into()))?;
    private_mounts().map_err(Error::Namespace)?;
    // In the new namespace, as nothing can be mounted across.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW)
        .open(&path)
        .map_err(failed("its opening"))?;
    let made = small_file_system().map_err(failed("a folder for it"))?;
    attach(&made, place).map_err(failed("its folder's place"))?;
    let target = create(&made, &name).map_err(failed("its place"))?;
    bind(&file, &target).map_err(failed("its mount"))?;
    seal(&made).map_err(failed("the folder's sealing"))?;
    Ok(place.to_owned())
}

/// Gives this process mounts of its own, with a user namespace where it takes one.
fn private_mounts() -> io::Result<()> {
    // SAFETY: takes nothing.
    let uid = unsafe { libc::geteuid() };
    // SAFETY: takes nothing.
    let gid = unsafe { libc::getegid() };
    let flags = match uid {
        0 => libc::CLONE_NEWNS,
        _ => libc::CLONE_NEWNS | libc::CLONE_NEWUSER,
    };
    // SAFETY: this process has one thread.
    if unsafe { libc::unshare(flags) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if uid != 0 {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    mount(None, c"/", libc::MS_REC | libc::MS_SLAVE)
}

/// A file system with room for one empty file, which is not anywhere yet.
fn small_file_system() -> io::Result<OwnedFd> {
    // SAFETY: a string that lives through the call, and a flag.
    let context =
        owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), libc::FSOPEN_CLOEXEC) })?;
    for (name, value) in [(c"mode", c"0755"), (c"size", c"4k"), (c"nr_inodes", c"2")] {
        configure(&context, libc::FSCONFIG_SET_STRING, Some((name, value)))?;
    }
    configure(&context, libc::FSCONFIG_CMD_CREATE, None)?;
    let attributes = libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    // SAFETY: a descriptor of ours, and flags.
    owned(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            libc::FSMOUNT_CLOEXEC,
            attributes,
        )
    })
}

fn configure(
    context: &OwnedFd,
    command: libc::fsconfig_command,
    setting: Option<(&CStr, &CStr)>,
) -> io::Result<()> {
    let (name, value) = setting.map_or((ptr::null(), ptr::null()), |(name, value)| {
        (name.as_ptr(), value.as_ptr())
    });
    // SAFETY: null or strings that live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            command,
            name,
            value,
            0,
        )
    };
    done(result)
}

/// Lays the file system over a folder.
fn attach(made: &OwnedFd, place: &str) -> io::Result<()> {
    let place = CString::new(place)?;
    // SAFETY: strings that live through the call, a descriptor of ours, and flags.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            made.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            place.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    done(result)
}

/// Creates an empty file in the file system, and never opens another one.
fn create(made: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: a descriptor of ours and a string that lives through the call.
    let number = unsafe { libc::openat(made.as_raw_fd(), name.as_ptr(), flags, 0o600) };
    owned(number.into())
}

/// Mounts one open file upon another.
fn bind(file: &File, target: &OwnedFd) -> io::Result<()> {
    let path = |number| CString::new(format!("/proc/self/fd/{number}"));
    let source = path(file.as_raw_fd())?;
    mount(Some(&source), &path(target.as_raw_fd())?, libc::MS_BIND)
}

/// Makes this mount read-only; with MS_BIND the flags are the mount's and never those of a file system.
fn seal(made: &OwnedFd) -> io::Result<()> {
    let path = CString::new(format!("/proc/self/fd/{}", made.as_raw_fd()))?;
    let flags = ATTRIBUTES | libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
    mount(None, &path, flags)
}

fn mount(source: Option<&CStr>, target: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: each pointer is null or a string that lives through the call.
    let result = unsafe {
        libc::mount(
            source.map_or(ptr::null(), CStr::as_ptr),
            target.as_ptr(),
            ptr::null(),
            flags,
            ptr::null(),
        )
    };
    done(result.into())
}

fn done(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: the kernel has just made it for the caller of this.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    }
}
