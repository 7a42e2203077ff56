//! Calls that take paths and change what they lead to.

use rustix::io::Errno;

use super::int;
use crate::descriptors::Object;
use crate::files::{Base, Found, Moment, What, now};
use crate::frames::lock;
use crate::process::{Answer, Process};

pub const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
const AT_SYMLINK_FOLLOW: u64 = 0x400;

impl Process<'_> {
    /// The folder that a call counts from.
    pub fn base(&self, folder: u64) -> Result<Base, Errno> {
        if int(folder) == int(super::CWD) {
            return Ok(self.cwd.clone());
        }
        self.open_base(folder)
    }

    /// The same, but never the one that it is in.
    fn open_base(&self, folder: u64) -> Result<Base, Errno> {
        let description = self.descriptors.get(folder)?;
        let description = lock(&description);
        match &description.object {
            Object::Folder(listing) => Ok(listing.base().clone()),
            Object::Path(base) => Ok(base.clone()),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Walks a path of the program's.
    pub fn find(&mut self, folder: u64, path: u64, follow: bool) -> Result<Found, Errno> {
        let mut string = std::mem::take(&mut self.path);
        let result = self.memory.read_string(path, &mut string).and_then(|()| {
            let base = if string.starts_with(b"/") {
                Base::default()
            } else {
                self.base(folder)?
            };
            self.tree.find(&base, &string, follow)
        });
        self.path = string;
        result
    }

    /// `faccessat2`: who may read may write, for it is a copy.
    pub fn access(&mut self, folder: u64, path: u64, mode: u64, flags: u64) -> Answer {
        let found = self.find(folder, path, flags & AT_SYMLINK_NOFOLLOW == 0)?;
        let status = self.tree.status(&found)?;
        if mode & 1 != 0 && !status.is_folder() && status.mode & 0o111 == 0 {
            return Err(Errno::ACCESS.into());
        }
        Ok(0)
    }

    /// `mkdirat`
    pub fn mkdir(&mut self, folder: u64, path: u64, mode: u64) -> Answer {
        let found = self.find(folder, path, false)?;
        let mode = int(mode) & 0o7777 & !self.umask;
        self.tree.make_folder(&found, mode)?;
        Ok(0)
    }

    /// `unlinkat`
    pub fn unlink(&mut self, folder: u64, path: u64, file: bool) -> Answer {
        let found = self.find(folder, path, false)?;
        self.tree.remove(&found, !file)?;
        Ok(0)
    }

    /// `renameat2`
    pub fn rename(&mut self, from: u64, old: u64, to: u64, new: u64, flags: u64) -> Answer {
        // RENAME_NOREPLACE is all that can be asked for.
        if flags & !1 != 0 {
            return Err(Errno::INVAL.into());
        }
        let old = self.find(from, old, false)?;
        if matches!(old.what, What::Missing) {
            return Err(Errno::NOENT.into());
        }
        let new = self.find(to, new, false)?;
        self.tree.rename(&old, &new, flags == 0)?;
        Ok(0)
    }

    /// `linkat`
    pub fn link(&mut self, from: u64, old: u64, to: u64, new: u64, flags: u64) -> Answer {
        let old = self.find(from, old, flags & AT_SYMLINK_FOLLOW != 0)?;
        let new = self.find(to, new, false)?;
        self.tree.link(&old, &new)?;
        Ok(0)
    }

    /// `symlinkat`
    pub fn symlink(&mut self, target: u64, folder: u64, path: u64) -> Answer {
        let mut string = Vec::new();
        self.memory.read_string(target, &mut string)?;
        let found = self.find(folder, path, false)?;
        self.tree.make_link(&found, string)?;
        Ok(0)
    }

    /// `readlinkat`
    pub fn readlink(&mut self, folder: u64, path: u64, buffer: u64, length: u64) -> Answer {
        if length == 0 || length > i32::MAX.unsigned_abs().into() {
            return Err(Errno::INVAL.into());
        }
        let found = self.find(folder, path, false)?;
        let mut target = self.tree.target(&found)?;
        target.truncate(usize::try_from(length).unwrap_or(0));
        self.memory.write(buffer, &target)?;
        Ok(target.len() as u64)
    }

    /// `chdir`
    pub fn chdir(&mut self, path: u64) -> Answer {
        let found = self.find(super::CWD, path, true)?;
        if !self.tree.status(&found)?.is_folder() {
            return Err(Errno::NOTDIR.into());
        }
        self.cwd = found.base();
        Ok(0)
    }

    /// `fchdir`
    pub fn fchdir(&mut self, fd: u64) -> Answer {
        let base = self.open_base(fd)?;
        if !self.tree.status_of(&base)?.is_folder() {
            return Err(Errno::NOTDIR.into());
        }
        self.tree.find(&base, b".", true)?;
        self.cwd = base;
        Ok(0)
    }

    /// `getcwd`
    pub fn getcwd(&mut self, buffer: u64, length: u64) -> Answer {
        let mut path = self.tree.path_of(&self.cwd)?;
        if path.is_empty() {
            path.push(b'/');
        }
        path.push(0);
        if (path.len() as u64) > length {
            return Err(Errno::RANGE.into());
        }
        self.memory.write(buffer, &path)?;
        Ok(path.len() as u64)
    }

    /// `fchmodat`
    pub fn chmod(&mut self, folder: u64, path: u64, mode: u64) -> Answer {
        let found = self.find(folder, path, true)?;
        let mode = int(mode) & 0o7777;
        self.tree.set_permissions(&found, mode)?;
        Ok(0)
    }

    /// `fchmod`
    pub fn fchmod(&mut self, fd: u64, mode: u64) -> Answer {
        self.node_or_folder_of(fd)?.set_permissions(int(mode));
        Ok(0)
    }

    /// `fchownat`: the owner is who it is, and nothing depends on it.
    pub fn chown(&mut self, folder: u64, path: u64, follow: bool) -> Answer {
        let found = self.find(folder, path, follow)?;
        self.tree.status(&found)?;
        Ok(0)
    }

    /// `fchown`
    pub fn fchown(&mut self, fd: u64) -> Answer {
        self.descriptors.get(fd)?;
        Ok(0)
    }

    /// `utimensat`
    pub fn utimensat(&mut self, folder: u64, path: u64, times: u64, flags: u64) -> Answer {
        let (mut accessed, mut modified) = (Some(now()), Some(now()));
        if times != 0 {
            let bytes: [u8; 32] = self.memory.read_array(times)?;
            accessed = moment(&bytes, 0)?;
            modified = moment(&bytes, 16)?;
        }
        if path == 0 {
            let node = self.node_or_folder_of(folder)?;
            node.set_times(accessed, modified);
            return Ok(0);
        }
        let found = self.find(folder, path, flags & AT_SYMLINK_NOFOLLOW == 0)?;
        self.tree.set_times(&found, accessed, modified)?;
        Ok(0)
    }

    /// `futimesat`, with microseconds.
    pub fn utimes(&mut self, folder: u64, path: u64, times: u64) -> Answer {
        let (mut accessed, mut modified) = (now(), now());
        if times != 0 {
            let bytes: [u8; 32] = self.memory.read_array(times)?;
            accessed = micro(&bytes, 0)?;
            modified = micro(&bytes, 16)?;
        }
        let found = self.find(folder, path, true)?;
        self.tree
            .set_times(&found, Some(accessed), Some(modified))?;
        Ok(0)
    }

    /// `utime`
    pub fn utime(&mut self, path: u64, times: u64) -> Answer {
        let (mut accessed, mut modified) = (now(), now());
        if times != 0 {
            let bytes: [u8; 16] = self.memory.read_array(times)?;
            accessed = seconds(&bytes, 0);
            modified = seconds(&bytes, 8);
        }
        let found = self.find(super::CWD, path, true)?;
        self.tree
            .set_times(&found, Some(accessed), Some(modified))?;
        Ok(0)
    }

    /// `truncate`
    pub fn truncate(&mut self, path: u64, length: u64) -> Answer {
        let found = self.find(super::CWD, path, true)?;
        if self.tree.status(&found)?.is_folder() {
            return Err(Errno::ISDIR.into());
        }
        let length = signed(length)?;
        let node = self.tree.upper_part(&found, length)?;
        let contents = node.file().ok_or(Errno::INVAL)?;
        lock(contents).set_size(length)?;
        node.set_modified();
        Ok(0)
    }

    /// `ftruncate`
    pub fn ftruncate(&mut self, fd: u64, length: u64) -> Answer {
        let node = self.node_of(fd)?;
        if lock(&*self.descriptors.get(fd)?).flags & super::descriptors::O_ACCMODE == 0 {
            return Err(Errno::INVAL.into());
        }
        let contents = node.file().ok_or(Errno::INVAL)?;
        lock(contents).set_size(signed(length)?)?;
        node.set_modified();
        Ok(0)
    }

    /// `fallocate`: the file becomes as long, if it is shorter. Room is not reserved.
    pub fn fallocate(&mut self, args: [u64; 6]) -> Answer {
        let [fd, mode, offset, length, ..] = args;
        if mode != 0 {
            return Err(Errno::OPNOTSUPP.into());
        }
        let node = self.node_of(fd)?;
        if lock(&*self.descriptors.get(fd)?).flags & super::descriptors::O_ACCMODE == 0 {
            return Err(Errno::BADF.into());
        }
        if length == 0 {
            return Err(Errno::INVAL.into());
        }
        let end = signed(offset)?.checked_add(signed(length)?);
        let end = end.ok_or(Errno::FBIG)?;
        let mut contents = lock(node.file().ok_or(Errno::INVAL)?);
        if end > contents.size() {
            contents.set_size(end)?;
        }
        drop(contents);
        node.set_modified();
        Ok(0)
    }
}

/// A length, which is an `off_t`.
fn signed(length: u64) -> Result<u64, Errno> {
    if length > i64::MAX.unsigned_abs() {
        return Err(Errno::INVAL);
    }
    Ok(length)
}

fn word(bytes: &[u8], offset: usize) -> i64 {
    let bytes = bytes.get(offset..).and_then(|bytes| bytes.first_chunk());
    bytes.copied().map_or(0, i64::from_le_bytes)
}

fn seconds(bytes: &[u8], offset: usize) -> Moment {
    Moment {
        seconds: word(bytes, offset),
        nanoseconds: 0,
    }
}

fn micro(bytes: &[u8], offset: usize) -> Result<Moment, Errno> {
    let microseconds = word(bytes, offset + 8);
    if !(0..1_000_000).contains(&microseconds) {
        return Err(Errno::INVAL);
    }
    Ok(Moment {
        seconds: word(bytes, offset),
        nanoseconds: microseconds * 1000,
    })
}

/// A time of `utimensat`; `None` to leave it.
fn moment(bytes: &[u8], offset: usize) -> Result<Option<Moment>, Errno> {
    const UTIME_NOW: i64 = 0x3fff_ffff;
    const UTIME_OMIT: i64 = 0x3fff_fffe;
    match word(bytes, offset + 8) {
        UTIME_NOW => Ok(Some(now())),
        UTIME_OMIT => Ok(None),
        nanoseconds if (0..1_000_000_000).contains(&nanoseconds) => Ok(Some(Moment {
            seconds: word(bytes, offset),
            nanoseconds,
        })),
        _ => Err(Errno::INVAL),
    }
}
