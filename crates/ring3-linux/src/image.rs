//! A program as it was loaded, once for all sandboxes of a machine that run it: pages that nobody
//! writes are mapped from here, of the others each run gets a copy.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use microvm_ring3::{Memory, Platform, Protection};
use rustix::fs::{FileType, Stat, fstat, stat};
use rustix::io::Errno;

use crate::elf::{self, Elf, ElfError, Segment, Source};
use crate::frames::{PAGE_BYTES, lock};

/// Most programs that are known; they are kept as long as a sandbox has them, and the last few for
/// longer.
const MOST: usize = 64;
const RECENT: usize = 4;
/// Largest of the latter.
const RECENT_BYTES: u64 = 64 << 20;
/// A file that was changed just now may be changed again without its times telling so.
const SETTLED: Duration = Duration::from_secs(2);
/// Bytes that are read from a file at a time.
const PIECE: usize = 256 << 10;

/// Why there is none.
#[derive(Debug)]
pub enum LoadError {
    Elf(ElfError),
    Platform(microvm_ring3::Error),
}

/// A loaded program.
#[derive(Debug)]
pub struct Image {
    pub elf: Elf,
    /// The pages of segments that are not written, one segment behind the other.
    shared: Option<Arc<Memory>>,
    parts: Vec<Part>,
}

/// A segment and where its pages are.
#[derive(Debug)]
pub struct Part {
    pub start: u64,
    pub end: u64,
    pub protection: Protection,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    /// Offset in the shared memory.
    Shared(u64),
    /// From the first page on; zeros behind.
    Bytes(Vec<u8>),
}

impl Image {
    fn load(source: &impl Source, limit: u64, platform: &dyn Platform) -> Result<Self, LoadError> {
        let elf = elf::parse(source, limit).map_err(LoadError::Elf)?;
        let pages = |segment: &Segment| segment.last_page() - segment.first_page();
        let read_only = elf.segments.iter().filter(|segment| !segment.write);
        let length: u64 = read_only.map(pages).sum();
        let shared = (length > 0)
            .then(|| platform.new_memory(length).map_err(LoadError::Platform))
            .transpose()?;
        let mut offset = 0;
        let mut parts = Vec::with_capacity(elf.segments.len());
        for segment in &elf.segments {
            let contents = match &shared {
                Some(memory) if !segment.write => {
                    fill(source, segment, memory, offset)?;
                    let start = offset;
                    offset += pages(segment);
                    Contents::Shared(start)
                }
                _ => Contents::Bytes(bytes(source, segment)?),
            };
            parts.push(Part {
                start: segment.first_page(),
                end: segment.last_page(),
                protection: Protection {
                    read: segment.read,
                    write: segment.write,
                    execute: segment.execute,
                },
                contents,
            });
        }
        Ok(Self { elf, shared, parts })
    }

    /// Its segments, in the order of addresses.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Bytes of its segments, in whole pages.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.end - part.start).sum()
    }

    /// The memory that shows a part to read only, and the offset in it.
    pub fn shared(&self, part: &Part) -> Option<(&Arc<Memory>, u64)> {
        match part.contents {
            Contents::Shared(offset) => Some((self.shared.as_ref()?, offset)),
            Contents::Bytes(_) => None,
        }
    }

    /// Puts what is at an address at first into pages that are zeros now.
    pub fn copy(
        &self,
        address: u64,
        memory: &Memory,
        offset: u64,
        length: u64,
    ) -> Result<(), microvm_ring3::Error> {
        let within = |part: &&Part| (part.start..part.end).contains(&address);
        let Some(part) = self.parts.iter().find(within) else {
            return Ok(());
        };
        let start = address - part.start;
        let length = length.min(part.end - address);
        match &part.contents {
            Contents::Bytes(bytes) => {
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                let rest = bytes.get(start..).unwrap_or_default();
                let length = usize::try_from(length).unwrap_or(0).min(rest.len());
                memory.write(offset, rest.get(..length).unwrap_or_default())
            }
            Contents::Shared(from) => {
                let Some(shared) = &self.shared else {
                    return Ok(());
                };
                let mut page = [0; PAGE_BYTES];
                for at in (0..length).step_by(page.len()) {
                    shared.read(from + start + at, &mut page)?;
                    memory.write(offset + at, &page)?;
                }
                Ok(())
            }
        }
    }
}

fn fill(
    source: &impl Source,
    segment: &Segment,
    memory: &Memory,
    start: u64,
) -> Result<(), LoadError> {
    let mut at = start + (segment.address - segment.first_page());
    let mut done = 0;
    let mut buffer = vec![0; PIECE];
    while done < segment.file_length {
        let length = (segment.file_length - done).min(PIECE as u64);
        let part = buffer.get_mut(..usize::try_from(length).unwrap_or(0));
        let part = part.unwrap_or_default();
        elf::exact(source, segment.offset + done, part).map_err(LoadError::Elf)?;
        memory.write(at, part).map_err(LoadError::Platform)?;
        at += length;
        done += length;
    }
    Ok(())
}

fn bytes(source: &impl Source, segment: &Segment) -> Result<Vec<u8>, LoadError> {
    let skip = usize::try_from(segment.address - segment.first_page()).unwrap_or(0);
    // No longer than the file is.
    let length = usize::try_from(segment.file_length).unwrap_or(0);
    let mut bytes = vec![0; skip + length];
    let part = bytes.get_mut(skip..).unwrap_or_default();
    elf::exact(source, segment.offset, part).map_err(LoadError::Elf)?;
    Ok(bytes)
}

/// What tells files and their contents apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, u64),
    changed: (i64, u64),
}

#[allow(clippy::useless_conversion)] // Types of the fields differ by architecture.
fn identity(stat: &Stat) -> Identity {
    Identity {
        device: stat.st_dev.into(),
        inode: stat.st_ino.into(),
        size: stat.st_size,
        modified: (stat.st_mtime, stat.st_mtime_nsec.into()),
        changed: (stat.st_ctime, stat.st_ctime_nsec.into()),
    }
}

/// The programs that sandboxes of a machine have.
#[derive(Debug, Default)]
pub struct Images {
    known: Mutex<Vec<(Identity, Weak<Image>)>>,
    /// Those that were asked for last, the newest at the end. Loading one anew takes time, and
    /// letting one go more.
    recent: Mutex<Vec<Arc<Image>>>,
}

impl Images {
    /// The program in this file, loaded now or before.
    pub fn get(
        &self,
        file: &File,
        limit: u64,
        platform: &dyn Platform,
    ) -> Result<Arc<Image>, LoadError> {
        let stat = fstat(file).map_err(|errno| LoadError::Elf(ElfError::Read(errno)))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(LoadError::Elf(ElfError::NotRegular));
        }
        let identity = settled(&stat);
        if let Some(image) = self.loaded(identity, limit)? {
            return Ok(image);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let image = Arc::new(Image::load(&Sized { file, size }, limit, platform)?);
        let mut known = lock(&self.known);
        known.retain(|(_, image)| image.strong_count() > 0);
        if let Some(identity) = identity
            && known.len() < MOST
        {
            known.push((identity, Arc::downgrade(&image)));
            drop(known);
            self.keep(&image);
        }
        Ok(image)
    }

    /// The program at a path, where it was loaded before and the file is still the same: it does
    /// not have to be opened then. Nothing where anything is in doubt, or it is too large.
    pub fn known(&self, path: &Path, limit: u64) -> Option<Arc<Image>> {
        let identity = settled(&stat(path).ok()?);
        self.loaded(identity, limit).ok().flatten()
    }

    /// The program in a file that has settled, where it was loaded before.
    fn loaded(
        &self,
        identity: Option<Identity>,
        limit: u64,
    ) -> Result<Option<Arc<Image>>, LoadError> {
        let Some(image) = identity.and_then(|identity| self.find(identity)) else {
            return Ok(None);
        };
        let bytes = image.bytes();
        if bytes > limit {
            return Err(LoadError::Elf(ElfError::TooLarge { bytes, limit }));
        }
        self.keep(&image);
        Ok(Some(image))
    }

    /// Makes an image one of those that stay for a while.
    fn keep(&self, image: &Arc<Image>) {
        if image.bytes() > RECENT_BYTES {
            return;
        }
        let mut recent = lock(&self.recent);
        if recent.last().is_some_and(|last| Arc::ptr_eq(last, image)) {
            return;
        }
        recent.retain(|other| !Arc::ptr_eq(other, image));
        recent.push(Arc::clone(image));
        let oldest = (recent.len() > RECENT).then(|| recent.remove(0));
        drop(recent);
        // Slow, and nobody else should wait for it.
        drop(oldest);
    }

    fn find(&self, identity: Identity) -> Option<Arc<Image>> {
        let known = lock(&self.known);
        let same = known.iter().filter(|(other, _)| *other == identity);
        same.filter_map(|(_, image)| image.upgrade()).next()
    }
}

/// Which file it is, if it was not changed just now.
fn settled(stat: &Stat) -> Option<Identity> {
    let changed = Duration::from_secs(u64::try_from(stat.st_ctime).unwrap_or(0));
    let age = SystemTime::now().duration_since(UNIX_EPOCH + changed);
    age.is_ok_and(|age| age > SETTLED).then(|| identity(stat))
}

struct Sized<'file> {
    file: &'file File,
    size: u64,
}

impl Source for Sized<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..)
            && !rest.is_empty()
        {
            match self.file.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
                }
            }
        }
        Ok(done)
    }
}
