//! The listening socket, its file, its group, and the pid file beside it.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use virtiofsd::oslib::ScopedUmask;
use virtiofsd::util::write_pid_file;

use crate::error::Error;

/// Files that exist as long as the daemon runs.
#[derive(Debug)]
pub struct Files {
    /// None until it is ours.
    socket: Option<PathBuf>,
    pid_file: PathBuf,
    /// Holds the lock that keeps another daemon from the same pid file.
    _lock: File,
    owned: bool,
}

impl Files {
    /// Forgets the files in a process that is not theirs; the lock stays with the other process's descriptor.
    pub fn disown(mut self) {
        self.owned = false;
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        for path in self.socket.iter().chain([&self.pid_file]) {
            // It may be gone already, with the folder that it was in.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Listens at `socket`: for this user, or for the members of `group` too.
pub fn listen(socket: &str, group: Option<&str>) -> Result<(UnixListener, Files), Error> {
    let path = PathBuf::from(socket);
    let parent = path.parent().ok_or(Error::SocketName)?;
    if !parent.as_os_str().is_empty() && !parent.is_dir() {
        return Err(Error::SocketFolder(parent.to_owned()));
    }
    let group = group.map(group_id).transpose()?;
    let others = libc::S_IRWXO;
    let umask = match group {
        Some(_) => others,
        None => others | libc::S_IRWXG,
    };
    let _umask = ScopedUmask::new(umask);

    let mut pid_file = OsString::from(&path);
    pid_file.push(".pid");
    let pid_file = PathBuf::from(pid_file);
    let lock = write_pid_file(&pid_file).map_err(|source| Error::PidFile {
        path: pid_file.clone(),
        source,
    })?;
    // From here on an error removes what is there.
    let mut files = Files {
        socket: None,
        pid_file,
        _lock: lock,
        owned: true,
    };
    remove_stale(&path)?;
    let listener = UnixListener::bind(&path).map_err(Error::Listener)?;
    files.socket = Some(path.clone());
    if let Some(group) = group {
        std::os::unix::fs::chown(&path, None, Some(group)).map_err(Error::SocketGroup)?;
    }
    Ok((listener, files))
}

/// Removes the socket of a daemon that was killed: whoever runs holds the pid file's lock.
fn remove_stale(path: &Path) -> Result<(), Error> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            std::fs::remove_file(path).map_err(Error::Listener)
        }
        // Anything else is somebody's file, and makes the bind fail.
        _ => Ok(()),
    }
}

fn group_id(name: &str) -> Result<u32, Error> {
    let name = CString::new(name).map_err(|_| Error::UnknownGroup)?;
    // SAFETY: a NUL-terminated string; the process has one thread here, so nobody overwrites the answer.
    let group = unsafe { libc::getgrnam(name.as_ptr()) };
    // SAFETY: null, or an entry that is valid until the next call.
    unsafe { group.as_ref() }
        .map(|group| group.gr_gid)
        .ok_or(Error::UnknownGroup)
}

/// Takes over the listening socket that this process inherited under `number`.
pub fn inherited(number: RawFd) -> Result<UnixListener, Error> {
    let wrong = |reason| Error::Descriptor { number, reason };
    if number < 0 {
        return Err(wrong("it is negative"));
    }
    let mut listening: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&listening)).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes to `listening`, whatever the number is.
    let result = unsafe {
        libc::getsockopt(
            number,
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            (&raw mut listening).cast(),
            &raw mut length,
        )
    };
    if result != 0 || listening == 0 {
        return Err(wrong("it is no listening socket"));
    }
    // SAFETY: it is open, and by the option's meaning it was handed over to this process.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: an open descriptor and a constant.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    let listener = UnixListener::from(owned);
    listener
        .set_nonblocking(false)
        .map_err(|_| wrong("it cannot be made blocking"))?;
    Ok(listener)
}
