//! Opening, closing and duplicating descriptors.

use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::int;
use crate::descriptors::{Description, Object};
use crate::files::{Body, Listing, What, pipe};
use crate::frames::lock;
use crate::process::{Answer, Process};

pub const O_ACCMODE: u32 = 3;
pub const O_WRONLY: u32 = 1;
const O_CREAT: u32 = 0o100;
const O_EXCL: u32 = 0o200;
const O_TRUNC: u32 = 0o1000;
pub const O_APPEND: u32 = 0o2000;
pub const O_NONBLOCK: u32 = 0o4000;
const O_DIRECTORY: u32 = 0o200_000;
const O_NOFOLLOW: u32 = 0o400_000;
const O_CLOEXEC: u32 = 0o2_000_000;
const O_PATH: u32 = 0o10_000_000;
const O_TMPFILE: u32 = 0o20_000_000;

impl Process<'_> {
    /// `openat`
    pub fn open(&mut self, folder: u64, path: u64, flags: u64, mode: u64) -> Answer {
        let flags = int(flags);
        let mode = int(mode) & 0o7777 & !self.umask;
        self.descriptors.has_room()?;
        if flags & O_TMPFILE != 0 {
            return Err(Errno::OPNOTSUPP.into());
        }
        let writes = flags & O_ACCMODE != 0 || flags & O_TRUNC != 0;
        // A new file is not made where a link leads.
        let exclusive = flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL;
        let follow = flags & O_NOFOLLOW == 0 && !exclusive;
        let found = self.find(folder, path, follow)?;
        if flags & O_PATH != 0 {
            // A folder is one to count from, but not one to list.
            let is_folder = self.tree.status(&found)?.is_folder();
            if flags & O_DIRECTORY != 0 && !is_folder {
                return Err(Errno::NOTDIR.into());
            }
            return self.add(Object::Path(found.base()), O_PATH, flags);
        }
        if flags & (O_CREAT | O_DIRECTORY) == O_CREAT | O_DIRECTORY {
            return Err(Errno::INVAL.into());
        }
        if matches!(found.what, What::Missing) {
            if flags & O_CREAT == 0 {
                return Err(Errno::NOENT.into());
            }
            let node = self.tree.create_file(&found, mode)?;
            return self.add(Object::Upper(node), flags, flags);
        }
        if exclusive {
            return Err(Errno::EXIST.into());
        }
        let status = self.tree.status(&found)?;
        if status.is_folder() {
            if writes || flags & O_CREAT != 0 {
                return Err(Errno::ISDIR.into());
            }
            let listing = Box::new(Listing::of(&found));
            return self.add(Object::Folder(listing), flags, flags);
        }
        if flags & O_DIRECTORY != 0 {
            return Err(Errno::NOTDIR.into());
        }
        if status.kind() == crate::files::S_IFLNK {
            return Err(Errno::LOOP.into());
        }
        let object = match &found.what {
            What::Lower(_) if !writes => {
                Object::Lower(Arc::new(self.tree.open_lower(&found.path)?))
            }
            // What would be copied is not wanted.
            _ if flags & O_TRUNC != 0 => Object::Upper(self.tree.upper_part(&found, 0)?),
            _ => Object::Upper(self.tree.upper(&found)?),
        };
        if let Object::Upper(node) = &object
            && flags & O_TRUNC != 0
            && let Some(contents) = node.file()
        {
            lock(contents).set_size(0)?;
            node.set_modified();
        }
        self.add(object, flags, flags)
    }

    fn add(&mut self, object: Object, flags: u32, open: u32) -> Answer {
        let description = Description {
            object,
            flags: flags & (O_ACCMODE | O_APPEND | O_NONBLOCK | O_PATH),
            position: 0,
        };
        Ok(self.descriptors.add(description, open & O_CLOEXEC != 0)?)
    }

    /// `close`
    pub fn close(&mut self, fd: u64) -> Answer {
        self.descriptors.close(fd)?;
        Ok(0)
    }

    /// `close_range`
    pub fn close_range(&mut self, first: u64, last: u64, flags: u64) -> Answer {
        let (first, last) = (u64::from(int(first)), u64::from(int(last)));
        if first > last || flags & !4 != 0 {
            return Err(Errno::INVAL.into());
        }
        for fd in first..=last.min(self.descriptors.end()) {
            // Those that are not open are no error.
            if flags & 4 == 0 {
                let _ = self.descriptors.close(fd);
            } else {
                let _ = self.descriptors.set_close_on_exec(fd, true);
            }
        }
        Ok(0)
    }

    /// `dup`
    pub fn dup(&mut self, fd: u64) -> Answer {
        let description = self.descriptors.get(fd)?;
        Ok(self.descriptors.share(description, 0, false)?)
    }

    /// `dup2`
    pub fn dup2(&mut self, from: u64, to: u64) -> Answer {
        let description = self.descriptors.get(from)?;
        if int(from) == int(to) {
            return Ok(u64::from(int(to)));
        }
        Ok(self.descriptors.replace(to, description, false)?)
    }

    /// `dup3`
    pub fn dup3(&mut self, from: u64, to: u64, flags: u64) -> Answer {
        if int(from) == int(to) || int(flags) & !O_CLOEXEC != 0 {
            return Err(Errno::INVAL.into());
        }
        let description = self.descriptors.get(from)?;
        let close_on_exec = int(flags) & O_CLOEXEC != 0;
        Ok(self.descriptors.replace(to, description, close_on_exec)?)
    }

    /// `pipe2`
    pub fn pipe(&mut self, fds: u64, flags: u64) -> Answer {
        let flags = int(flags);
        if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
            return Err(Errno::INVAL.into());
        }
        let (reader, writer) = pipe(self.tree.budget())?;
        let reader = self.add(Object::Reader(reader), flags & O_NONBLOCK, flags)?;
        let flags_of_writer = flags & O_NONBLOCK | O_WRONLY;
        let writer = match self.add(Object::Writer(writer), flags_of_writer, flags) {
            Ok(writer) => writer,
            Err(stop) => {
                self.descriptors.close(reader)?;
                return Err(stop);
            }
        };
        let mut bytes = [0; 8];
        let halves = [reader, writer].map(|fd| int(fd).to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(halves.as_flattened()) {
            *to = *from;
        }
        if let Err(errno) = self.memory.write(fds, &bytes) {
            self.descriptors.close(reader)?;
            self.descriptors.close(writer)?;
            return Err(errno.into());
        }
        Ok(0)
    }

    /// `fcntl`
    pub fn fcntl(&mut self, fd: u64, command: u64, argument: u64) -> Answer {
        let description = self.descriptors.get(fd)?;
        match int(command) {
            // F_DUPFD and F_DUPFD_CLOEXEC
            command @ (0 | 1030) => {
                let from = u64::from(int(argument));
                Ok(self.descriptors.share(description, from, command != 0)?)
            }
            1 => Ok(u64::from(self.descriptors.close_on_exec(fd)?)),
            2 => {
                self.descriptors.set_close_on_exec(fd, argument & 1 != 0)?;
                Ok(0)
            }
            3 => Ok(u64::from(lock(&description).flags)),
            4 => {
                let changed = O_APPEND | O_NONBLOCK;
                let mut description = lock(&description);
                description.flags = description.flags & !changed | int(argument) & changed;
                Ok(0)
            }
            // F_GETLK: nobody has any. F_SETLK and F_SETLKW: there is nobody to lock out.
            5 => {
                self.memory.write(argument, &2u16.to_le_bytes())?;
                Ok(0)
            }
            6 | 7 => Ok(0),
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// `ioctl`
    pub fn ioctl(&mut self, fd: u64, request: u64, argument: u64) -> Answer {
        let description = self.descriptors.get(fd)?;
        match int(request) {
            // FIOCLEX and FIONCLEX
            0x5451 => {
                self.descriptors.set_close_on_exec(fd, true)?;
                Ok(0)
            }
            0x5450 => {
                self.descriptors.set_close_on_exec(fd, false)?;
                Ok(0)
            }
            // FIONBIO
            0x5421 => {
                let on = self.memory.read_u32(argument)? != 0;
                let mut description = lock(&description);
                description.flags &= !O_NONBLOCK;
                description.flags |= if on { O_NONBLOCK } else { 0 };
                Ok(0)
            }
            // FIONREAD
            0x541b => {
                let available = match &lock(&description).object {
                    Object::Reader(reader) => reader.ready().0,
                    Object::Stdin => self.streams.available(),
                    _ => return Err(Errno::NOTTY.into()),
                };
                let available = u32::try_from(available).unwrap_or(u32::MAX >> 1);
                self.memory.write(argument, &available.to_le_bytes())?;
                Ok(0)
            }
            // Nothing is a terminal.
            _ => Err(Errno::NOTTY.into()),
        }
    }

    /// `fsync` and its like: memory has nothing to write back.
    pub fn sync(&mut self, fd: u64) -> Answer {
        self.descriptors.get(fd)?;
        Ok(0)
    }

    /// The same, or a folder, which is in memory then.
    pub fn node_or_folder_of(&mut self, fd: u64) -> Result<Arc<crate::files::Node>, Errno> {
        let description = self.descriptors.get(fd)?;
        let base = match &lock(&*description).object {
            Object::Folder(listing) => Some(listing.base().clone()),
            Object::Lower(_) => return Err(Errno::ROFS),
            Object::Path(_) => return Err(Errno::BADF),
            _ => None,
        };
        let Some(base) = base else {
            return self.node_of(fd);
        };
        let found = self.tree.find(&base, b".", true)?;
        self.tree.upper(&found)
    }

    /// What is behind a descriptor that leads to a file in memory.
    pub fn node_of(&self, fd: u64) -> Result<Arc<crate::files::Node>, Errno> {
        let description = self.descriptors.get(fd)?;
        let description: &Mutex<Description> = &description;
        match &lock(description).object {
            Object::Upper(node) if matches!(node.body, Body::File(_)) => Ok(Arc::clone(node)),
            _ => Err(Errno::INVAL),
        }
    }
}
