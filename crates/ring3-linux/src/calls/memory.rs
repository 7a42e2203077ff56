//! Calls about memory, as far as their arguments have to be taken apart.

use std::sync::Arc;

use microvm_ring3::Protection;
use rustix::io::Errno;

use super::descriptors::O_ACCMODE;
use super::int;
use crate::descriptors::Object;
use crate::files::{Body, LowerFile, Node};
use crate::frames::lock;
use crate::memory::{Backing, Kind, Map, Remap};
use crate::process::{Answer, Process};

const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const MAP_SHARED_VALIDATE: u64 = 3;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_NORESERVE: u64 = 0x4000;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;

const MREMAP_MAYMOVE: u64 = 1;

fn protection(bits: u64) -> Result<Protection, Errno> {
    // PROT_GROWSDOWN, PROT_GROWSUP and PROT_SEM are of no use here.
    if int(bits) & !7 != 0 {
        return Err(Errno::INVAL);
    }
    Ok(Protection {
        read: bits & 1 != 0,
        write: bits & 2 != 0,
        execute: bits & 4 != 0,
    })
}

/// A file of the root folder that is mapped: pages are copied, so that nothing happens to this
/// process when somebody makes the file shorter.
#[derive(Debug)]
struct Lower(Arc<LowerFile>);

impl Backing for Lower {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..)
            && !rest.is_empty()
        {
            match self.0.read_some(rest, offset.saturating_add(done as u64))? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }
}

/// A file in memory that is mapped.
#[derive(Debug)]
struct Upper(Arc<Node>);

impl Backing for Upper {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let contents = lock(self.0.file().ok_or(Errno::BADF)?);
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..)
            && !rest.is_empty()
        {
            let (length, part) = contents.part(offset.saturating_add(done as u64), rest.len());
            if length == 0 {
                break;
            }
            let place = rest.get_mut(..length).unwrap_or_default();
            match part {
                Some(part) => place.copy_from_slice(part),
                None => place.fill(0),
            }
            done += length;
        }
        Ok(done)
    }
}

impl Process<'_> {
    /// `mmap`. Mappings of files are private ones, or shared ones that are only read; both are
    /// copies of what the file has when a page is first touched.
    pub fn mmap(&mut self, args: [u64; 6]) -> Answer {
        let [address, length, bits, flags, fd, offset] = args;
        let protection = protection(bits)?;
        let shared = match flags & 0xf {
            MAP_SHARED | MAP_SHARED_VALIDATE => true,
            MAP_PRIVATE => false,
            _ => return Err(Errno::INVAL.into()),
        };
        let kind = if flags & MAP_ANONYMOUS != 0 {
            Kind::Anonymous
        } else {
            if !offset.is_multiple_of(4096) || offset > i64::MAX.unsigned_abs() {
                return Err(Errno::INVAL.into());
            }
            self.backing(fd, offset, shared, protection.write)?
        };
        let map = Map {
            address,
            length,
            protection,
            kind,
            fixed: flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0,
            keep: flags & MAP_FIXED_NOREPLACE != 0,
            reserve: flags & MAP_NORESERVE != 0,
        };
        Ok(self.memory.map(map)?)
    }

    fn backing(&self, fd: u64, base: u64, shared: bool, write: bool) -> Result<Kind, Errno> {
        let writes = shared && write;
        let description = self.descriptors.get(fd)?;
        let description = lock(&description);
        if description.flags & O_ACCMODE == super::descriptors::O_WRONLY {
            return Err(Errno::ACCESS);
        }
        let backing: Arc<dyn Backing> = match &description.object {
            Object::Lower(_) if writes => return Err(Errno::ACCESS),
            Object::Lower(file) => Arc::new(Lower(Arc::clone(file))),
            Object::Upper(node) => match node.body {
                Body::File(_) if writes => return Err(Errno::NODEV),
                Body::File(_) => Arc::new(Upper(Arc::clone(node))),
                // /dev/zero
                Body::Device(crate::files::Device::Zero) => return Ok(Kind::Anonymous),
                _ => return Err(Errno::NODEV),
            },
            _ => return Err(Errno::NODEV),
        };
        Ok(Kind::File {
            backing,
            base,
            shared,
        })
    }

    /// `mprotect`
    pub fn mprotect(&mut self, address: u64, length: u64, bits: u64) -> Answer {
        let protection = protection(bits)?;
        Ok(self.memory.protect(address, length, protection)?)
    }

    /// `mremap`
    pub fn mremap(&mut self, args: [u64; 6]) -> Answer {
        let [address, old_length, length, flags, ..] = args;
        if flags & !MREMAP_MAYMOVE != 0 || !address.is_multiple_of(4096) {
            return Err(Errno::INVAL.into());
        }
        let remap = Remap {
            address,
            old_length,
            length,
            may_move: flags & MREMAP_MAYMOVE != 0,
        };
        Ok(self.memory.remap(remap)?)
    }

    /// `madvise`: `MADV_DONTNEED` empties pages, all else is advice.
    pub fn madvise(&mut self, address: u64, length: u64, advice: u64) -> Answer {
        const MADV_DONTNEED: u32 = 4;
        const MADV_FREE: u32 = 8;
        if !address.is_multiple_of(4096) {
            return Err(Errno::INVAL.into());
        }
        match int(advice) {
            MADV_DONTNEED => Ok(self.memory.empty(address, length)?),
            0..=3 | MADV_FREE | 12..=18 | 20..=25 => Ok(0),
            _ => Err(Errno::INVAL.into()),
        }
    }
}
