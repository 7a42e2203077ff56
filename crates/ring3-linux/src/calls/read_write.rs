//! Reading and writing. Bytes go between a program's memory and where they come from or belong with
//! one copy, or by way of one buffer that stays; whatever length a program names, nothing is
//! allocated for it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use microvm_ring3::Access;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::descriptors::{O_ACCMODE, O_APPEND, O_NONBLOCK, O_WRONLY};
use crate::descriptors::{Description, Object, Shared};
use crate::files::{Body, Device, Node};
use crate::frames::lock;
use crate::outcome::Limit;
use crate::process::{Answer, Ending, Process, Stop};
use crate::streams::{Which, Written};

/// Most bytes of one call, as Linux has it.
const MOST: u64 = 0x7fff_f000;
/// Most parts of `readv` and `writev`.
const MOST_PARTS: u64 = 1024;
/// Bytes after which a long call looks whether the run is to end.
const LOOK: usize = 4 << 20;

/// Where to read or write: at the position, which moves, or at an offset.
#[derive(Clone, Copy)]
enum At {
    Position,
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
        let mut total = 0;
        for index in 0..count {
            let entry = parts.checked_add(16 * index).ok_or(Errno::FAULT)?;
            let result = self.part(entry, MOST - total).map_err(Stop::from);
            let result = result.and_then(|(address, length)| {
                let done = if length == 0 {
                    0
                } else {
                    transfer(self, &description, address, length, at)?
                };
                Ok((done, length))
            });
            let (done, length) = match result {
                Ok(result) => result,
                // What was done stays done.
                Err(Stop::Error(_)) if total > 0 => break,
                Err(stop) => return Err(stop),
            };
            total += done;
            if let At::Offset(offset) = &mut at {
                *offset += done;
            }
            if done < length as u64 {
                break;
            }
        }
        Ok(total)
    }

    /// An entry of `struct iovec`.
    fn part(&mut self, entry: u64, most: u64) -> Result<(u64, usize), Errno> {
        let bytes: [u8; 16] = self.memory.read_array(entry)?;
        let ([address, length], _) = bytes.as_chunks::<8>() else {
            return Err(Errno::FAULT);
        };
        let length = u64::from_le_bytes(*length);
        if length > i64::MAX.unsigned_abs() {
            return Err(Errno::INVAL);
        }
        let length = usize::try_from(length.min(most)).unwrap_or(0);
        Ok((u64::from_le_bytes(*address), length))
    }

    fn read_into(&mut self, description: &Shared, address: u64, length: usize, at: At) -> Answer {
        let mut description = lock(description);
        let description = &mut *description;
        if description.flags & O_ACCMODE == O_WRONLY {
            return Err(Errno::BADF.into());
        }
        let position = match at {
            At::Position => description.position,
            At::Offset(offset) => offset,
        };
        let done = match &description.object {
            Object::Stdin => self.read_stdin(address, length, description.flags)?,
            Object::Lower(file) => {
                let file = Arc::clone(file);
                self.fill(address, length, |process, address, length, done| {
                    process.read_file(&file, address, length, position.saturating_add(done))
                })?
            }
            Object::Upper(node) => {
                let node = Arc::clone(node);
                self.fill(address, length, |process, address, length, done| {
                    process.read_node(&node, address, length, position.saturating_add(done))
                })?
            }
            Object::Reader(_) => return self.read_pipe(description, address, length),
            Object::Folder(_) => return Err(Errno::ISDIR.into()),
            Object::Output(_) | Object::Writer(_) | Object::Path => {
                return Err(Errno::BADF.into());
            }
        };
        if matches!(at, At::Position) {
            description.position = position.saturating_add(done as u64);
        }
        Ok(done as u64)
    }

    /// Transfers piece by piece until one is shorter than it might be.
    fn fill(
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

    fn read_file(
        &mut self,
        file: &File,
        address: u64,
        length: usize,
        offset: u64,
    ) -> Result<Option<usize>, Stop> {
        let piece = self.memory.piece(address, length, Access::Write)?;
        let length = piece.length.min(self.buffer.len());
        let buffer = self.buffer.get_mut(..length).unwrap_or_default();
        let read = match file.read_at(buffer, offset) {
            Ok(0) => return Ok(None),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(Some(0)),
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO).into()),
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        piece
            .memory
            .write(piece.offset, bytes)
            .map_err(|_| Errno::FAULT)?;
        Ok(Some(read))
    }

    fn read_node(
        &mut self,
        node: &Node,
        address: u64,
        length: usize,
        offset: u64,
    ) -> Result<Option<usize>, Stop> {
        let piece = self.memory.piece(address, length, Access::Write)?;
        let length = piece.length.min(self.buffer.len());
        let buffer = self.buffer.get_mut(..length).unwrap_or_default();
        let (length, bytes) = match &node.body {
            Body::File(contents) => {
                let contents = lock(contents);
                let (length, part) = contents.part(offset, length);
                if length == 0 {
                    return Ok(None);
                }
                if let Some(part) = part {
                    piece
                        .memory
                        .write(piece.offset, part)
                        .map_err(|_| Errno::FAULT)?;
                    return Ok(Some(length));
                }
                let buffer = buffer.get_mut(..length).unwrap_or_default();
                buffer.fill(0);
                (length, &*buffer)
            }
            Body::Device(Device::Null) => return Ok(None),
            Body::Device(Device::Zero | Device::Full) => {
                buffer.fill(0);
                (length, &*buffer)
            }
            Body::Device(Device::Random) => {
                fill_randomly(buffer)?;
                (length, &*buffer)
            }
            Body::Folder(_) | Body::Link(_) => return Err(Errno::BADF.into()),
        };
        piece
            .memory
            .write(piece.offset, bytes)
            .map_err(|_| Errno::FAULT)?;
        Ok(Some(length))
    }

    fn read_stdin(&mut self, address: u64, length: usize, flags: u32) -> Result<usize, Stop> {
        if length == 0 {
            return Ok(0);
        }
        // What was read and has no place would be lost.
        let piece = self.memory.piece(address, length, Access::Write)?;
        let length = piece.length.min(self.buffer.len());
        loop {
            self.wait_for_input(flags & O_NONBLOCK != 0)?;
            let buffer = self.buffer.get_mut(..length).unwrap_or_default();
            match self.streams.read(buffer) {
                Ok(read) => {
                    let bytes = buffer.get(..read).unwrap_or_default();
                    piece
                        .memory
                        .write(piece.offset, bytes)
                        .map_err(|_| Errno::FAULT)?;
                    return Ok(read);
                }
                Err(Errno::AGAIN) if flags & O_NONBLOCK == 0 => {}
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn wait_for_input(&mut self, at_once: bool) -> Result<(), Stop> {
        let Some(input) = self.streams.input() else {
            return Ok(());
        };
        self.wait_for(&input, PollFlags::IN, at_once)
    }

    fn wait_for_output(&mut self, which: Which, at_once: bool) -> Result<(), Stop> {
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

    fn read_pipe(&mut self, description: &Description, address: u64, length: usize) -> Answer {
        let Object::Reader(reader) = &description.object else {
            return Err(Errno::BADF.into());
        };
        if length == 0 {
            return Ok(0);
        }
        let done = self.fill(address, length, |process, address, length, done| {
            match reader.ready() {
                (0, _) if done > 0 => return Ok(None),
                (0, false) => return Ok(None),
                (0, true) if description.flags & O_NONBLOCK != 0 => {
                    return Err(Errno::AGAIN.into());
                }
                (0, true) => process.wait_forever()?,
                _ => {}
            }
            let piece = process.memory.piece(address, length, Access::Write)?;
            let read = reader.read(piece.length, |bytes| {
                piece
                    .memory
                    .write(piece.offset, bytes)
                    .map_err(|_| Errno::FAULT)?;
                Ok(bytes.len())
            })?;
            Ok(Some(read))
        })?;
        Ok(done as u64)
    }

    /// Waits for what only the program itself could do: until the run is ended from outside.
    pub fn wait_forever(&mut self) -> Result<(), Stop> {
        loop {
            self.wait(&mut Vec::new(), None)?;
        }
    }

    fn write_from(&mut self, description: &Shared, address: u64, length: usize, at: At) -> Answer {
        let mut description = lock(description);
        let description = &mut *description;
        if description.flags & O_ACCMODE == 0 {
            return Err(Errno::BADF.into());
        }
        let done = match &description.object {
            Object::Output(which) => {
                let (which, flags) = (*which, description.flags);
                self.fill(address, length, |process, address, length, _| {
                    process.write_output(which, address, length, flags)
                })?
            }
            Object::Upper(node) => {
                let position = match (at, node.file()) {
                    (At::Offset(offset), _) => offset,
                    (At::Position, Some(contents)) if description.flags & O_APPEND != 0 => {
                        lock(contents).size()
                    }
                    (At::Position, _) => description.position,
                };
                let node = Arc::clone(node);
                let done = self.fill(address, length, |process, address, length, done| {
                    process.write_node(&node, address, length, position.saturating_add(done))
                })?;
                if done > 0 {
                    node.set_modified();
                }
                if matches!(at, At::Position) {
                    description.position = position.saturating_add(done as u64);
                }
                done
            }
            Object::Writer(_) => return self.write_pipe(description, address, length),
            Object::Stdin
            | Object::Lower(_)
            | Object::Folder(_)
            | Object::Reader(_)
            | Object::Path => return Err(Errno::BADF.into()),
        };
        Ok(done as u64)
    }

    fn write_output(
        &mut self,
        which: Which,
        address: u64,
        length: usize,
        flags: u32,
    ) -> Result<Option<usize>, Stop> {
        let piece = self.memory.piece(address, length, Access::Read)?;
        let length = piece.length.min(self.buffer.len());
        self.wait_for_output(which, flags & O_NONBLOCK != 0)?;
        let buffer = self.buffer.get_mut(..length).unwrap_or_default();
        piece
            .memory
            .read(piece.offset, buffer)
            .map_err(|_| Errno::FAULT)?;
        match self.streams.write(which, buffer) {
            Ok(Written::Bytes(written)) => Ok(Some(written)),
            Ok(Written::Limit) => Err(Stop::End(Ending::Limit(Limit::Output))),
            Err(Errno::PIPE) => Err(self.broken_pipe()),
            Err(Errno::AGAIN) if flags & O_NONBLOCK == 0 => Ok(Some(0)),
            Err(Errno::INTR) => Ok(Some(0)),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write_node(
        &mut self,
        node: &Node,
        address: u64,
        length: usize,
        offset: u64,
    ) -> Result<Option<usize>, Stop> {
        let piece = self.memory.piece(address, length, Access::Read)?;
        match &node.body {
            Body::File(contents) => {
                let mut contents = lock(contents);
                let part = contents.part_mut(offset, piece.length)?;
                piece
                    .memory
                    .read(piece.offset, part)
                    .map_err(|_| Errno::FAULT)?;
                Ok(Some(part.len()))
            }
            Body::Device(Device::Full) => Err(Errno::NOSPC.into()),
            Body::Device(_) => Ok(Some(piece.length)),
            Body::Folder(_) | Body::Link(_) => Err(Errno::BADF.into()),
        }
    }

    fn write_pipe(&mut self, description: &Description, address: u64, length: usize) -> Answer {
        let Object::Writer(writer) = &description.object else {
            return Err(Errno::BADF.into());
        };
        let done = self.fill(address, length, |process, address, length, done| {
            let room = match writer.ready() {
                Err(_) => return Err(process.broken_pipe()),
                Ok(0) if description.flags & O_NONBLOCK == 0 => {
                    process.wait_forever()?;
                    0
                }
                Ok(0) if done > 0 => return Ok(None),
                Ok(0) => return Err(Errno::AGAIN.into()),
                Ok(room) => room,
            };
            let piece = process
                .memory
                .piece(address, length.min(room), Access::Read)?;
            let length = piece.length.min(process.buffer.len());
            let buffer = process.buffer.get_mut(..length).unwrap_or_default();
            piece
                .memory
                .read(piece.offset, buffer)
                .map_err(|_| Errno::FAULT)?;
            writer.write(buffer);
            Ok(Some(length))
        })?;
        Ok(done as u64)
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
        Object::Path => Err(Errno::BADF),
        Object::Folder(_) => Err(Errno::ISDIR),
        _ => Err(Errno::SPIPE),
    }
}
