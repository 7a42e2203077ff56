//! What writing does, by what is written.

use std::sync::Arc;

use microvm_ring3::Access;
use rustix::io::Errno;

use super::descriptors::{O_ACCMODE, O_APPEND, O_NONBLOCK};
use super::read_write::At;
use crate::descriptors::{Description, Object, Shared};
use crate::files::{Body, Device, Node};
use crate::frames::lock;
use crate::outcome::Limit;
use crate::process::{Answer, Ending, Process, Stop};
use crate::streams::{Which, Written};

impl Process<'_> {
    pub(super) fn write_from(
        &mut self,
        description: &Shared,
        address: u64,
        length: usize,
        at: At,
    ) -> Answer {
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
                    // At an offset too, as Linux has it.
                    (_, Some(contents)) if description.flags & O_APPEND != 0 => {
                        lock(contents).size()
                    }
                    (At::Offset(offset), _) => offset,
                    _ => description.position,
                };
                let node = Arc::clone(node);
                let done = self.fill(address, length, |process, address, length, done| {
                    process.write_node(&node, address, length, position.saturating_add(done))
                })?;
                if done > 0 {
                    node.set_modified();
                }
                if !matches!(at, At::Offset(_)) {
                    description.position = position.saturating_add(done as u64);
                }
                done
            }
            Object::Writer(_) => return self.write_pipe(description, address, length),
            Object::Stdin
            | Object::Lower(_)
            | Object::Folder(_)
            | Object::Reader(_)
            | Object::Path(_) => return Err(Errno::BADF.into()),
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
        self.wait_for_output(which, flags & O_NONBLOCK != 0)?;
        let buffer = self.buffer.first(piece.length);
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
            let buffer = process.buffer.first(piece.length);
            piece
                .memory
                .read(piece.offset, buffer)
                .map_err(|_| Errno::FAULT)?;
            writer.write(buffer);
            Ok(Some(buffer.len()))
        })?;
        Ok(done as u64)
    }
}
