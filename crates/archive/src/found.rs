//! Entries of what was found in the file system.

use std::os::fd::BorrowedFd;

use rustix::fs::{self, FileType, Stat};
use rustix::io::Errno;

use crate::decoder::{Entry, Kind};
use crate::numbers::Time;

/// The entry of a link, a FIFO or a device; `None` for what has no place in an archive, or has gone meanwhile.
pub(crate) fn special(
    folder: BorrowedFd<'_>,
    file: &[u8],
    name: &[u8],
    status: &Stat,
) -> Result<Option<Entry>, Errno> {
    let kind = match FileType::from_raw_mode(status.st_mode) {
        FileType::Symlink => Kind::SymbolicLink,
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::CharacterDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        _ => return Ok(None),
    };
    let mut entry = entry_of(kind, name, status);
    if kind == Kind::SymbolicLink {
        entry.link = match fs::readlinkat(folder, file, Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error),
        };
    }
    Ok(Some(entry))
}

/// What a status tells.
pub(crate) fn entry_of(kind: Kind, name: &[u8], status: &Stat) -> Entry {
    let is_device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
    let device = if is_device { status.st_rdev } else { 0 };
    Entry {
        kind,
        name: name.to_vec(),
        link: Vec::new(),
        mode: status.st_mode & 0o7777,
        uid: status.st_uid,
        gid: status.st_gid,
        modified: Time {
            seconds: status.st_mtime,
            nanoseconds: u32::try_from(status.st_mtime_nsec).unwrap_or(0),
        },
        size: match kind {
            Kind::File => u64::try_from(status.st_size).unwrap_or(0),
            _ => 0,
        },
        segments: None,
        device: (fs::major(device), fs::minor(device)),
    }
}
