//! Owner, mode and time of what was made.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use crate::decoder::{Entry, Kind};

/// Set-user-id and set-group-id: they mean the owner, and go with it.
const SET_ID: u32 = 0o6000;

/// A system call that was refused.
pub(crate) type Refused = (&'static str, Errno);

/// Sets them on an open file or folder. Owner first, for it takes set-id bits away; then the mode, and the time, which
/// nothing changes any more.
pub(crate) fn set(file: &OwnedFd, entry: &Entry, with_owner: bool) -> Result<(), Refused> {
    if with_owner {
        let (uid, gid) = owner(entry);
        fs::fchown(file, uid, gid).map_err(|source| ("chown", source))?;
    }
    fs::fchmod(file, mode(entry, with_owner)).map_err(|source| ("chmod", source))?;
    fs::futimens(file, &times(entry)).map_err(|source| ("utime", source))
}

/// The same for a link or a device, which is not to be opened.
pub(crate) fn set_at(
    folder: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    with_owner: bool,
) -> Result<(), Refused> {
    if with_owner {
        let (uid, gid) = owner(entry);
        fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|source| ("chown", source))?;
    }
    if entry.kind != Kind::SymbolicLink {
        // Only guests make devices, by their own archives.
        fs::chmodat(folder, name, mode(entry, with_owner), AtFlags::empty())
            .map_err(|source| ("chmod", source))?;
    }
    fs::utimensat(folder, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|source| ("utime", source))
}

fn mode(entry: &Entry, with_owner: bool) -> Mode {
    let taken = if with_owner { 0 } else { SET_ID };
    Mode::from_raw_mode(entry.mode & 0o7777 & !taken)
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    // All ones would mean nobody.
    let uid = (entry.uid != u32::MAX).then(|| Uid::from_raw(entry.uid));
    let gid = (entry.gid != u32::MAX).then(|| Gid::from_raw(entry.gid));
    (uid, gid)
}

/// The time of the last access is left as it is.
fn times(entry: &Entry) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: entry.modified.seconds,
            tv_nsec: entry.modified.nanoseconds.into(),
        },
    }
}
