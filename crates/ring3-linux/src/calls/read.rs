//! What reading does, by what is read.

use std::sync::Arc;

use microvm_ring3::Access;
use rustix::io::Errno;

use super::descriptors::{O_ACCMODE, O_NONBLOCK, O_WRONLY};
use super::read_write::{At, fill_randomly};
use crate::descriptors::{Description, Object, Shared};
use crate::files::{Body, Device, LowerFile, Node};
use crate::frames::lock;
use crate::process::{Answer, Process, Stop};

impl Process<'_> {
    pub(super) fn read_into(
        &mut self,
        description: &Shared,
        address: u64,
        length: usize,
        at: At,
    ) -> Answer {
        let mut description = lock(description);
        let description = &mut *description;
        if description.flags & O_ACCMODE == O_WRONLY {
            return Err(Errno::BADF.into());
        }
        let position = match at {
            At::Position | At::Behind => description.position,
            At::Offset(offset) => offset,
        };
        let at_once = description.flags & O_NONBLOCK != 0 || matches!(at, At::Behind);
        let done = match &description.object {
            Object::Stdin => self.read_stdin(address, length, at_once)?,
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
            Object::Reader(_) => return self.read_pipe(description, address, length, at_once),
            Object::Folder(_) => return Err(Errno::ISDIR.into()),
            Object::Output(_) | Object::Writer(_) | Object::Path(_) => {
                return Err(Errno::BADF.into());
            }
        };
        if !matches!(at, At::Offset(_)) {
            description.position = position.saturating_add(done as u64);
        }
        Ok(done as u64)
    }

    fn read_file(
        &mut self,
        file: &LowerFile,
        address: u64,
        length: usize,
        offset: u64,
    ) -> Result<Option<usize>, Stop> {
        let piece = self.memory.piece(address, length, Access::Write)?;
        let buffer = self.buffer.first(piece.length);
        let read = file.read_some(buffer, offset)?;
        if read == 0 {
            return Ok(None);
        }
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
        let buffer = self.buffer.first(piece.length);
        let bytes = match &node.body {
            Body::File(contents) => {
                let contents = lock(contents);
                let (length, part) = contents.part(offset, buffer.len());
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
                &*buffer
            }
            Body::Device(Device::Null) => return Ok(None),
            Body::Device(Device::Zero | Device::Full) => {
                buffer.fill(0);
                &*buffer
            }
            Body::Device(Device::Random) => {
                fill_randomly(buffer)?;
                &*buffer
            }
            Body::Folder(_) | Body::Link(_) => return Err(Errno::BADF.into()),
        };
        piece
            .memory
            .write(piece.offset, bytes)
            .map_err(|_| Errno::FAULT)?;
        Ok(Some(bytes.len()))
    }

    fn read_stdin(&mut self, address: u64, length: usize, at_once: bool) -> Result<usize, Stop> {
        if length == 0 {
            return Ok(0);
        }
        // What was read and has no place would be lost.
        let piece = self.memory.piece(address, length, Access::Write)?;
        loop {
            self.wait_for_input(at_once)?;
            let buffer = self.buffer.first(piece.length);
            match self.streams.read(buffer) {
                Ok(read) => {
                    let bytes = buffer.get(..read).unwrap_or_default();
                    piece
                        .memory
                        .write(piece.offset, bytes)
                        .map_err(|_| Errno::FAULT)?;
                    return Ok(read);
                }
                Err(Errno::AGAIN) if !at_once => {}
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn read_pipe(
        &mut self,
        description: &Description,
        address: u64,
        length: usize,
        at_once: bool,
    ) -> Answer {
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
                (0, true) if at_once => {
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
}
