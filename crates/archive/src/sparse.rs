//! Files with holes: where their data lies, as the file system tells it and as GNU's format 1.0 writes it.

use std::os::fd::AsFd;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::Error;
use crate::header::{BLOCK, padding};
use crate::numbers::parse_decimal;

/// A part of a file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// So many parts are kept apart: a megabyte of memory. What lies behind them is taken for data.
const MAX_SEGMENTS: usize = 65_536;
/// A list of that length; decimal numbers take up to 21 bytes.
const MAX_MAP: usize = (MAX_SEGMENTS + 1) * 2 * 21;

/// Asks the file system where the data of a file of this size is. `None` where it cannot tell, or where all of it is data.
pub(crate) fn segments(file: impl AsFd, size: u64) -> Result<Option<Vec<Segment>>, Errno> {
    let mut segments = Vec::new();
    let mut position = 0;
    while position < size {
        let offset = match seek(&file, SeekFrom::Data(position)) {
            Ok(offset) => offset.min(size),
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error),
        };
        if offset >= size {
            break;
        }
        let end = if segments.len() + 1 == MAX_SEGMENTS {
            size
        } else {
            // Another may change the file meanwhile: never backwards.
            seek(&file, SeekFrom::Hole(offset))?.clamp(offset + 1, size)
        };
        segments.push(Segment {
            offset,
            length: end - offset,
        });
        position = end;
    }
    let is_whole = matches!(segments.as_slice(), [one] if one.length == size);
    Ok((!is_whole).then_some(segments))
}

/// The list ahead of the data: how many parts, then offset and length of each, as lines; whole blocks.
pub(crate) fn write_map(segments: &[Segment], size: u64) -> Vec<u8> {
    use std::fmt::Write;
    let mut text = String::new();
    let reaches_end = segments
        .last()
        .is_some_and(|last| last.offset + last.length == size);
    // An empty part at the end tells where that is.
    let end = (!reaches_end).then_some(Segment {
        offset: size,
        length: 0,
    });
    let count = segments.len() + usize::from(end.is_some());
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{count}");
    for Segment { offset, length } in segments.iter().chain(&end) {
        let _ = write!(text, "{offset}\n{length}\n");
    }
    let mut map = text.into_bytes();
    map.resize(map.len() + padding(map.len() as u64), 0);
    map
}

/// Reads that list, block by block.
#[derive(Debug, Default)]
pub(crate) struct MapReader {
    text: Vec<u8>,
    /// How many lines that has.
    lines: usize,
}

impl MapReader {
    /// Takes a block in; gives the parts when it was the last one of the list. They lie in order within `size`.
    pub(crate) fn take(
        &mut self,
        block: &[u8; BLOCK],
        size: u64,
    ) -> Result<Option<Vec<Segment>>, Error> {
        self.text.extend_from_slice(block);
        self.lines += block.iter().filter(|byte| **byte == b'\n').count();
        if self.text.len() > MAX_MAP {
            return Err(Error::Malformed("a sparse file has too many parts"));
        }
        let mut lines = self.text.split(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        if first.len() == self.text.len() {
            return Err(Error::Malformed("a sparse file's list has no length"));
        }
        let count = usize::try_from(parse_decimal(first)?).unwrap_or(usize::MAX);
        if count > MAX_SEGMENTS + 1 {
            return Err(Error::Malformed("a sparse file has too many parts"));
        }
        if self.lines < 1 + count * 2 {
            return Ok(None);
        }
        let mut segments = Vec::with_capacity(count);
        let mut position = 0;
        for _ in 0..count {
            let mut number = || parse_decimal(lines.next().unwrap_or_default());
            let (offset, length) = (number()?, number()?);
            let end = offset.saturating_add(length);
            if offset < position || end > size {
                return Err(Error::Malformed("a sparse file's parts are not in order"));
            }
            position = end;
            if length > 0 {
                segments.push(Segment { offset, length });
            }
        }
        Ok(Some(segments))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Seek, Write};

    fn read(map: &[u8], size: u64) -> Result<Option<Vec<Segment>>, Error> {
        let mut reader = MapReader::default();
        let (blocks, _) = map.as_chunks::<BLOCK>();
        for block in blocks {
            if let Some(segments) = reader.take(block, size)? {
                return Ok(Some(segments));
            }
        }
        Ok(None)
    }

    #[test]
    fn holes_are_found_where_they_are() {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.seek(std::io::SeekFrom::Start(1 << 20)).unwrap();
        file.write_all(&[1; 4096]).unwrap();
        file.set_len(4 << 20).unwrap();
        let Some(found) = segments(&file, 4 << 20).unwrap() else {
            return;
        };
        assert_eq!(
            found,
            [Segment {
                offset: 1 << 20,
                length: 4096
            }]
        );
    }

    #[test]
    fn lists_that_are_wrong_are_malformed() {
        let padded = |text: &str| {
            let mut map = text.as_bytes().to_vec();
            map.resize(map.len() + padding(map.len() as u64), 0);
            map
        };
        for text in [
            "x\n",
            "-1\n",
            "1\n5\n100\n",
            "2\n0\n5\n3\n5\n",
            "99999999\n",
            "1\n0\nx\n",
        ] {
            assert!(read(&padded(text), 10).is_err(), "{text:?}");
        }
        assert!(read(&[b'1'; BLOCK], 10).is_err(), "no newline");
    }

    proptest! {
        #[test]
        fn lists_come_back_as_they_were(parts in proptest::collection::vec((0..1_000_000_u64, 1..1_000_000_u64), 0..200), rest in 0..9_u64) {
            let mut position = 0;
            let mut segments = Vec::new();
            for (gap, length) in parts {
                segments.push(Segment { offset: position + gap, length });
                position += gap + length;
            }
            let size = position + rest;
            prop_assert_eq!(read(&write_map(&segments, size), size).unwrap().unwrap(), segments);
        }
    }
}
