//! The data of a file, part by part: on its way into an archive, and out of one.

use std::os::fd::OwnedFd;

use rustix::fs;
use rustix::io::{Errno, pread, pwrite};

use crate::sparse::Segment;

/// Where the next data is.
#[derive(Debug)]
struct Parts {
    part: Segment,
    rest: std::vec::IntoIter<Segment>,
}

impl Parts {
    /// All of a file of this size, or the parts of it that have data.
    fn new(segments: Option<Vec<Segment>>, size: u64) -> Self {
        let whole = Segment {
            offset: 0,
            length: size,
        };
        Self {
            part: Segment {
                offset: 0,
                length: 0,
            },
            rest: segments.unwrap_or_else(|| vec![whole]).into_iter(),
        }
    }

    /// What is left of the part that is worked on; `None` at the end.
    fn current(&mut self) -> Option<Segment> {
        while self.part.length == 0 {
            self.part = self.rest.next()?;
        }
        Some(self.part)
    }

    fn advance(&mut self, count: usize) {
        let count = count as u64;
        self.part.offset = self.part.offset.saturating_add(count);
        self.part.length = self.part.length.saturating_sub(count);
    }
}

/// A file that is packed.
#[derive(Debug)]
pub(crate) struct Source {
    file: OwnedFd,
    pub(crate) name: Vec<u8>,
    parts: Parts,
}

/// What came of reading.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Some(usize),
    /// All of it was read.
    End,
    /// The file is shorter than it was.
    Short,
}

impl Source {
    pub(crate) fn new(
        file: OwnedFd,
        name: Vec<u8>,
        segments: Option<Vec<Segment>>,
        size: u64,
    ) -> Self {
        Self {
            file,
            name,
            parts: Parts::new(segments, size),
        }
    }

    /// Appends more of it, up to so many bytes.
    pub(crate) fn read(&mut self, chunk: &mut Vec<u8>, most: usize) -> Result<Read, Errno> {
        let Some(Segment { offset, length }) = self.parts.current() else {
            return Ok(Read::End);
        };
        let count = usize::try_from(length).unwrap_or(usize::MAX).min(most);
        let start = chunk.len();
        chunk.resize(start.saturating_add(count), 0);
        let room = chunk.get_mut(start..).unwrap_or_default();
        let read = match pread(&self.file, room, offset) {
            Err(Errno::INTR) => {
                chunk.truncate(start);
                return Ok(Read::Some(0));
            }
            read => read,
        };
        chunk.truncate(start.saturating_add(read.unwrap_or(0)));
        match read? {
            0 => Ok(Read::Short),
            read => {
                self.parts.advance(read);
                Ok(Read::Some(read))
            }
        }
    }
}

/// A file that is unpacked.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) file: OwnedFd,
    parts: Parts,
}

impl Target {
    /// A new file, which is made as long as it will be where it ends with a hole.
    pub(crate) fn new(
        file: OwnedFd,
        segments: Option<Vec<Segment>>,
        size: u64,
    ) -> Result<Self, Errno> {
        let end = match &segments {
            Some(segments) => segments
                .last()
                .map_or(0, |last| last.offset.saturating_add(last.length)),
            None => size,
        };
        if end < size {
            fs::ftruncate(&file, size)?;
        }
        let parts = Parts::new(segments, size);
        Ok(Self { file, parts })
    }

    /// Writes more of it. What is beyond its parts is dropped: the decoder gives no more than there is room for.
    pub(crate) fn write(&mut self, mut data: &[u8]) -> Result<(), Errno> {
        while let Some(Segment { offset, length }) = self.parts.current() {
            if data.is_empty() {
                break;
            }
            let count = usize::try_from(length)
                .unwrap_or(usize::MAX)
                .min(data.len());
            let written = match pwrite(&self.file, data.get(..count).unwrap_or(data), offset) {
                Err(Errno::INTR) => continue,
                Ok(0) => return Err(Errno::NOSPC),
                written => written?,
            };
            self.parts.advance(written);
            data = data.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}
