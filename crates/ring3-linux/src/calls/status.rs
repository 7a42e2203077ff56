//! Calls that tell of files: `stat` and its like, positions, and the names in folders.

use rustix::io::Errno;

use super::int;
use super::path::AT_SYMLINK_NOFOLLOW;
use crate::descriptors::{Description, Object};
use crate::files::{Layout, S_IFIFO, Status};
use crate::frames::lock;
use crate::process::{Answer, Process};

const AT_EMPTY_PATH: u64 = 0x1000;
/// Bytes of an entry of `getdents64` without its name, and of `getdents`.
const ENTRY64: usize = 19;
const ENTRY: usize = 18;
const TMPFS_MAGIC: u64 = 0x0102_1994;

impl Process<'_> {
    /// `stat` and `lstat`
    pub fn stat(&mut self, folder: u64, path: u64, buffer: u64, follow: bool) -> Answer {
        let found = self.find(folder, path, follow)?;
        let status = self.tree.status(&found)?;
        self.memory.write(buffer, &status.to_stat())?;
        Ok(0)
    }

    /// `fstat`
    pub fn fstat(&mut self, fd: u64, buffer: u64) -> Answer {
        let status = self.status_of(fd)?;
        self.memory.write(buffer, &status.to_stat())?;
        Ok(0)
    }

    /// `newfstatat`
    pub fn newfstatat(&mut self, folder: u64, path: u64, buffer: u64, flags: u64) -> Answer {
        let status = self.status_at(folder, path, flags)?;
        self.memory.write(buffer, &status.to_stat())?;
        Ok(0)
    }

    /// `statx`
    pub fn statx(&mut self, args: [u64; 6]) -> Answer {
        let [folder, path, flags, _, buffer, _] = args;
        let status = self.status_at(folder, path, flags)?;
        self.memory.write(buffer, &status.to_statx())?;
        Ok(0)
    }

    fn status_at(&mut self, folder: u64, path: u64, flags: u64) -> Result<Status, Errno> {
        let first: [u8; 1] = self.memory.read_array(path)?;
        if first == [0] && flags & AT_EMPTY_PATH != 0 {
            if int(folder) == int(super::CWD) {
                return self.tree.status_of(&self.cwd);
            }
            return self.status_of(folder);
        }
        let found = self.find(folder, path, flags & AT_SYMLINK_NOFOLLOW == 0)?;
        self.tree.status(&found)
    }

    fn status_of(&mut self, fd: u64) -> Result<Status, Errno> {
        let description = self.descriptors.get(fd)?;
        let description = lock(&description);
        let stream = |kind: u32| Status {
            mode: kind | 0o600,
            links: 1,
            block_size: 4096,
            user: crate::files::USER,
            group: crate::files::USER,
            ..Status::default()
        };
        match &description.object {
            Object::Lower(file) => file.status(),
            Object::Upper(node) => Ok(node.status()),
            Object::Folder(listing) => self.tree.status_of(listing.base()),
            Object::Path(base) => self.tree.status_of(base),
            Object::Stdin | Object::Output(_) | Object::Reader(_) | Object::Writer(_) => {
                Ok(stream(S_IFIFO))
            }
        }
    }

    /// `lseek`
    pub fn lseek(&mut self, fd: u64, offset: u64, whence: u64) -> Answer {
        let description = self.descriptors.get(fd)?;
        let mut description = lock(&description);
        let Description {
            object, position, ..
        } = &mut *description;
        let size = match object {
            Object::Lower(file) => i64::try_from(file.status()?.size).unwrap_or(i64::MAX),
            Object::Upper(node) => node.file().map_or(0, |contents| {
                i64::try_from(lock(contents).size()).unwrap_or(i64::MAX)
            }),
            Object::Folder(listing) => {
                let to = match int(whence) {
                    0 => offset,
                    1 if offset == 0 => listing.position(),
                    _ => return Err(Errno::INVAL.into()),
                };
                listing.seek(self.tree, to)?;
                return Ok(listing.position());
            }
            Object::Path(_) => return Err(Errno::BADF.into()),
            _ => return Err(Errno::SPIPE.into()),
        };
        let offset = offset.cast_signed();
        let to = match int(whence) {
            0 => Some(offset),
            1 => i64::try_from(*position)
                .unwrap_or(i64::MAX)
                .checked_add(offset),
            2 => size.checked_add(offset),
            // SEEK_DATA and SEEK_HOLE: all of it is data.
            3 | 4 if !(0..size).contains(&offset) => return Err(Errno::NXIO.into()),
            3 => Some(offset),
            4 => Some(size),
            _ => return Err(Errno::INVAL.into()),
        };
        let to = to
            .and_then(|to| u64::try_from(to).ok())
            .ok_or(Errno::INVAL)?;
        *position = to;
        Ok(to)
    }

    /// `getdents64`, and `getdents`
    pub fn getdents(&mut self, fd: u64, buffer: u64, length: u64, new: bool) -> Answer {
        let description = self.descriptors.get(fd)?;
        let mut description = lock(&description);
        let listing = match &mut description.object {
            Object::Folder(listing) => listing,
            Object::Path(_) => return Err(Errno::BADF.into()),
            _ => return Err(Errno::NOTDIR.into()),
        };
        listing.refresh(self.tree);
        let length = usize::try_from(int(length)).unwrap_or(0);
        let entries = self.buffer.first(length);
        let start = listing.position();
        let mut used = 0;
        loop {
            let name = match listing.next(self.tree) {
                Ok(Some(name)) => name,
                Err(errno) if used == 0 => return Err(errno.into()),
                // What went wrong will do so again.
                Ok(None) | Err(_) => break,
            };
            let fixed = if new { ENTRY64 } else { ENTRY };
            // The old form has the kind behind the name's end.
            let entry = (fixed + name.name.len() + 1 + usize::from(!new)).next_multiple_of(8);
            let end = entries.len().min(used + entry);
            let Some(place) = entries.get_mut(used..end) else {
                listing.put_back(name);
                break;
            };
            if place.len() < entry {
                listing.put_back(name);
                if used == 0 {
                    return Err(Errno::INVAL.into());
                }
                break;
            }
            place.fill(0);
            let mut head = Layout([0; ENTRY64]);
            head.u64(0, name.inode);
            head.u64(8, listing.position());
            head.bytes(16, &u16::try_from(entry).unwrap_or(0).to_le_bytes());
            head.bytes(18, &[name.kind]);
            let head = head.0.get(..fixed).unwrap_or_default();
            let last = place.len() - 1;
            let bytes = head.iter().chain(&name.name);
            for (to, from) in place.iter_mut().zip(bytes) {
                *to = *from;
            }
            if !new && let Some(kind) = place.get_mut(last) {
                *kind = name.kind;
            }
            used += entry;
        }
        let bytes = entries.get(..used).unwrap_or_default();
        if let Err(errno) = self.memory.write(buffer, bytes) {
            // No name is lost.
            listing.seek(self.tree, start)?;
            return Err(errno.into());
        }
        Ok(used as u64)
    }

    /// `statfs`
    pub fn statfs(&mut self, path: u64, buffer: u64) -> Answer {
        let found = self.find(super::CWD, path, true)?;
        self.tree.status(&found)?;
        self.write_statfs(buffer)
    }

    /// `fstatfs`
    pub fn fstatfs(&mut self, fd: u64, buffer: u64) -> Answer {
        self.descriptors.get(fd)?;
        self.write_statfs(buffer)
    }

    /// What is known of the file system: that it is one in memory, and how much is left.
    fn write_statfs(&mut self, buffer: u64) -> Answer {
        let budget = self.tree.budget();
        let mut out = Layout([0; 120]);
        out.u64(0, TMPFS_MAGIC);
        out.u64(8, 4096);
        out.u64(16, budget.limit() / 4096);
        out.u64(24, budget.left() / 4096);
        out.u64(32, budget.left() / 4096);
        out.u64(64, 255);
        out.u64(72, 4096);
        self.memory.write(buffer, &out.0)?;
        Ok(0)
    }
}
