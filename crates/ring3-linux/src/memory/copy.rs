//! Copying between a program's memory and this process. Every address is the program's choice.

use microvm_ring3::Access;
use rustix::io::Errno;

use super::{Failure, Piece, ProgramMemory, Touch};

/// Longest string that is read, as `PATH_MAX` has it.
const MOST_STRING: usize = 4096;

impl ProgramMemory {
    /// Where the first bytes of a range are, as many as lie together.
    pub fn piece(&mut self, address: u64, length: usize, access: Access) -> Result<Piece, Errno> {
        match self.touch(address, access) {
            Ok(Touch::Mapped | Touch::There) => {}
            Ok(Touch::Nothing | Touch::Forbidden | Touch::Gone) => return Err(Errno::FAULT),
            Err(Failure::Limit) => return Err(Errno::NOMEM),
            Err(Failure::Platform(error)) => {
                self.broken = Some(error);
                return Err(Errno::NOMEM);
            }
        }
        // An extent may be a part of two areas, of which this access is allowed in one.
        let area_end = self.areas.at(address).map_or(address, |(_, area)| area.end);
        let (start, extent) = self.extent(address).ok_or(Errno::FAULT)?;
        let there = extent.end.min(area_end) - address;
        let length = length.min(usize::try_from(there).unwrap_or(usize::MAX));
        Ok(Piece {
            memory: std::sync::Arc::clone(&extent.memory),
            offset: extent.offset + (address - start),
            length,
        })
    }

    /// Copies out of the program.
    pub fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..)
            && !rest.is_empty()
        {
            let at = address.checked_add(done as u64).ok_or(Errno::FAULT)?;
            let piece = self.piece(at, rest.len(), Access::Read)?;
            let part = rest.get_mut(..piece.length).unwrap_or_default();
            piece
                .memory
                .read(piece.offset, part)
                .map_err(|_| Errno::FAULT)?;
            done += piece.length;
        }
        Ok(())
    }

    /// Copies into the program.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..)
            && !rest.is_empty()
        {
            let at = address.checked_add(done as u64).ok_or(Errno::FAULT)?;
            let piece = self.piece(at, rest.len(), Access::Write)?;
            let part = rest.get(..piece.length).unwrap_or_default();
            piece
                .memory
                .write(piece.offset, part)
                .map_err(|_| Errno::FAULT)?;
            done += piece.length;
        }
        Ok(())
    }

    /// Reads an array of bytes.
    pub fn read_array<const LENGTH: usize>(&mut self, address: u64) -> Result<[u8; LENGTH], Errno> {
        let mut bytes = [0; LENGTH];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads a number.
    pub fn read_u64(&mut self, address: u64) -> Result<u64, Errno> {
        self.read_array(address).map(u64::from_le_bytes)
    }

    /// Reads a number.
    pub fn read_u32(&mut self, address: u64) -> Result<u32, Errno> {
        self.read_array(address).map(u32::from_le_bytes)
    }

    /// Reads a string that ends with a zero byte, into a buffer that is emptied first.
    pub fn read_string(&mut self, address: u64, string: &mut Vec<u8>) -> Result<(), Errno> {
        string.clear();
        let mut buffer = [0; 256];
        loop {
            let at = address
                .checked_add(string.len() as u64)
                .ok_or(Errno::FAULT)?;
            let piece = self.piece(at, buffer.len(), Access::Read)?;
            let part = buffer.get_mut(..piece.length).unwrap_or_default();
            piece
                .memory
                .read(piece.offset, part)
                .map_err(|_| Errno::FAULT)?;
            match part.iter().position(|byte| *byte == 0) {
                Some(end) => {
                    string.extend_from_slice(part.get(..end).unwrap_or_default());
                    return if string.len() < MOST_STRING {
                        Ok(())
                    } else {
                        Err(Errno::NAMETOOLONG)
                    };
                }
                None => string.extend_from_slice(part),
            }
            if string.len() >= MOST_STRING {
                return Err(Errno::NAMETOOLONG);
            }
        }
    }
}
