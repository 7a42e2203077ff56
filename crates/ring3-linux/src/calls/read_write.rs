//! Reading and writing. Bytes go between a program's memory and where they come from or belong with
//! one copy, or by way of one buffer that stays; whatever length a program names, nothing is
//! allocated for it.

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::descriptors::{Object, Shared};
use crate::frames::lock;
use crate::process::{Answer, Process, Stop};
use crate::streams::Which;

/// Most bytes of one call, as Linux has it.
const MOST: u64 = 0x7fff_f000;
/// Most parts of `readv` and `writev`.
const MOST_PARTS: u64 = 1024;
/// Bytes after which a long call looks whether the run is to end.
const LOOK: usize = 4 << 20;

/// Where to read or write: at the position, which moves, or at an offset.
#[derive(Clone, Copy)]
pub(super) enum At {
    Position,
    /// The same, for a later part of one call: who reads has something and waits for nothing.
    Behind,
    Offset(u64),
}

impl Process<'_> {
    /// `read`
    pub fn read(&mut self, fd: u64, address: u64, length: u64) -> Answer {
        let description = self.descriptors.get(fd)?;
        let length = usize::try_from(length.min(MOST)).unwrap_or(0);
        self.read_into(&description, address, length, At::Position)
    }

    /// `write`
    pub fn write(&mut self, fd: u64, address: u64, length: u64) -> Answer {
        let description = self.descriptors.get(fd)?;
        let length = usize::try_from(length.min(MOST)).unwrap_or(0);
        self.write_from(&description, address, length, At::Position)
    }

    /// `pread64`
    pub fn pread(&mut self, fd: u64, address: u64, length: u64, offset: u64) -> Answer {
        let description = self.descriptors.get(fd)?;
        let length = usize::try_from(length.min(MOST)).unwrap_or(0);
        let offset = at_offset(offset)?;
        check_seekable(&description)?;
        self.read_into(&description, address, length, offset)
    }

    /// `pwrite64`
    pub fn pwrite(&mut self, fd: u64, address: u64, length: u64, offset: u64) -> Answer {
        let description = self.descriptors.get(fd)?;
        let length = usize::try_from(length.min(MOST)).unwrap_or(0);
        let offset = at_offset(offset)?;
        check_seekable(&description)?;
        self.write_from(&description, address, length, offset)
    }

    /// `readv` and `preadv`
    pub fn readv(&mut self, fd: u64, parts: u64, count: u64, offset: Option<u64>) -> Answer {
        self.each_part(fd, parts, count, offset, Self::read_into)
    }

    /// `writev` and `pwritev`
    pub fn writev(&mut self, fd: u64, parts: u64, count: u64, offset: Option<u64>) -> Answer {
        self.each_part(fd, parts, count, offset, Self::write_from)
    }

    fn each_part(
        &mut self,
        fd: u64,
        parts: u64,
        count: u64,
        offset: Option<u64>,
        transfer: fn(&mut Self, &Shared, u64, usize, At) -> Answer,
    ) -> Answer {
        let description = self.descriptors.get(fd)?;
        let mut at = At::Position;
        if let Some(offset) = offset {
            check_seekable(&description)?;
            at = at_offset(offset)?;
        }
        if count > MOST_PARTS {
            return Err(Errno::INVAL.into());
        }
        // One that is wrong is found before anything is moved.
        let mut entries = Vec::new();
        for index in 0..count {
            let entry = parts.checked_add(16 * index).ok_or(Errno::FAULT)?;
            entries.push(self.part(entry)?);
        }
        let mut total = 0;
        for (address, length) in entries {
            let length = length.min(MOST - total);
            if length == 0 {
                continue;
            }
            let part = usize::try_from(length).unwrap_or(0);
            let done = match transfer(self, &description, address, part, at) {
                Ok(done) => done,
                // What was done stays done.
                Err(Stop::Error(_)) if total > 0 => break,
                Err(stop) => return Err(stop),
            };
            total += done;
            at = match at {
                At::Offset(offset) => At::Offset(offset + done),
                At::Position | At::Behind => At::Behind,
            };
            if done < length {
                break;
            }
        }
        Ok(total)
    }

    /// An entry of `struct iovec`.
    fn part(&mut self, entry: u64) -> Result<(u64, u64), Errno> {
        let address = self.memory.read_u64(entry)?;
        let length = self
            .memory
            .read_u64(entry.checked_add(8).ok_or(Errno::FAULT)?)?;
        if length > i64::MAX.unsigned_abs() {
            return Err(Errno::INVAL);
        }
        Ok((address, length))
    }

    /// Transfers piece by piece until one is shorter than it might be.
    pub(super) fn fill(
        &mut self,
        address: u64,
        length: usize,
        mut transfer: impl FnMut(&mut Self, u64, usize, u64) -> Result<Option<usize>, Stop>,
    ) -> Result<usize, Stop> {
        let mut done = 0;
        let mut looked = 0;
        while done < length {
            let Some(at) = address.checked_add(done as u64) else {
                return if done > 0 {
                    Ok(done)
                } else {
                    Err(Errno::FAULT.into())
                };
            };
            match transfer(self, at, length - done, done as u64) {
                Ok(Some(moved)) => done += moved,
                Ok(None) => break,
                Err(Stop::Error(_)) if done > 0 => break,
                Err(stop) => return Err(stop),
            }
            if done - looked >= LOOK {
                looked = done;
                self.look().map_err(Stop::End)?;
            }
        }
        Ok(done)
    }

    pub(super) fn wait_for_input(&mut self, at_once: bool) -> Result<(), Stop> {
        let Some(input) = self.streams.input() else {
            return Ok(());
        };
        self.wait_for(&input, PollFlags::IN, at_once)
    }

    pub(super) fn wait_for_output(&mut self, which: Which, at_once: bool) -> Result<(), Stop> {
        let Some(output) = self.streams.output(which) else {
            return Ok(());
        };
        self.wait_for(&output, PollFlags::OUT, at_once)
    }

    fn wait_for(
        &mut self,
        fd: &std::os::fd::OwnedFd,
        events: PollFlags,
        at_once: bool,
    ) -> Result<(), Stop> {
        let mut fds = vec![PollFd::new(fd, events)];
        let until = at_once.then(std::time::Instant::now);
        self.wait(&mut fds, until)?;
        if fds.iter().all(|fd| fd.revents().is_empty()) {
            return Err(Errno::AGAIN.into());
        }
        Ok(())
    }

    /// Waits for what only the program itself could do: until the run is ended from outside.
    pub fn wait_forever(&mut self) -> Result<(), Stop> {
        loop {
            self.wait(&mut Vec::new(), None)?;
        }
    }
}

/// Fills a buffer with bytes that nobody can guess.
pub fn fill_randomly(buffer: &mut [u8]) -> Result<(), Errno> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..)
        && !rest.is_empty()
    {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn at_offset(offset: u64) -> Result<At, Errno> {
    if offset > i64::MAX.unsigned_abs() {
        return Err(Errno::INVAL);
    }
    Ok(At::Offset(offset))
}

/// Refuses what has no positions.
fn check_seekable(description: &Shared) -> Result<(), Errno> {
    match lock(description).object {
        Object::Lower(_) | Object::Upper(_) => Ok(()),
        Object::Path(_) => Err(Errno::BADF),
        Object::Folder(_) => Err(Errno::ISDIR),
        _ => Err(Errno::SPIPE),
    }
}
