//! Takes an archive apart, in whatever pieces it comes. Knows nothing of files.

use crate::Error;
use crate::header::{BLOCK, Block, Header, padding};
use crate::numbers::Time;
use crate::pax::Extended;
use crate::sparse::{MapReader, Segment};

/// Extended headers hold names and times, and attributes that others write.
const MAX_EXTENDED: u64 = 1024 * 1024;
/// Extended headers ahead of one entry: GNU's two, and pax's two.
const MAX_EXTENSIONS: u32 = 8;
/// Zeros behind the end; programs fill up to a tape's record.
const MAX_TRAILING: u64 = 1024 * 1024;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    SymbolicLink,
    HardLink,
    Fifo,
    CharacterDevice,
    BlockDevice,
}

/// A file, folder or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: Time,
    /// Of a file: with its holes.
    pub(crate) size: u64,
    /// Of a file that has holes: its data, in order.
    pub(crate) segments: Option<Vec<Segment>>,
    pub(crate) device: (u32, u32),
}

/// The next thing in an archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    Entry(Box<Entry>),
    /// More of the file's data.
    Data(&'a [u8]),
    /// The file is whole.
    EndOfFile,
}

#[derive(Debug)]
enum State {
    /// Between two entries. `zero` is whether the last block was the first half of the end.
    Header {
        zero: bool,
    },
    Extended {
        kind: u8,
        text: Vec<u8>,
        left: u64,
        padding: usize,
    },
    Map {
        entry: Box<Entry>,
        reader: MapReader,
        left: u64,
        padding: usize,
    },
    Content {
        left: u64,
        padding: usize,
    },
    Padding {
        left: usize,
    },
    End {
        trailing: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// The beginning of a block.
    partial: Vec<u8>,
    extended: Extended,
    extensions: u32,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Header { zero: false },
            partial: Vec::with_capacity(BLOCK),
            extended: Extended::default(),
            extensions: 0,
        }
    }

    /// Whether the archive's own end has been seen.
    pub(crate) fn is_at_end(&self) -> bool {
        matches!(self.state, State::End { .. })
    }

    /// Takes the next thing off the input; `None` when that is used up.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Error> {
        loop {
            match &mut self.state {
                State::Header { .. } => {
                    let Some(block) = self.block(input) else {
                        return Ok(None);
                    };
                    if let Some(event) = self.header(&block)? {
                        return Ok(Some(event));
                    }
                }
                State::Extended {
                    kind,
                    text,
                    left,
                    padding,
                } => {
                    if *left > 0 {
                        let piece = split(input, *left);
                        if piece.is_empty() {
                            return Ok(None);
                        }
                        *left -= piece.len() as u64;
                        text.extend_from_slice(piece);
                        continue;
                    }
                    let (kind, padding) = (*kind, *padding);
                    let text = std::mem::take(text);
                    self.state = State::Padding { left: padding };
                    self.extend(kind, text)?;
                }
                State::Map { .. } => {
                    let Some(block) = self.block(input) else {
                        return Ok(None);
                    };
                    if let Some(event) = self.map(&block)? {
                        return Ok(Some(event));
                    }
                }
                State::Content { left: 0, padding } => {
                    self.state = State::Padding { left: *padding };
                    return Ok(Some(Event::EndOfFile));
                }
                State::Content { left, .. } => {
                    let piece = split(input, *left);
                    *left -= piece.len() as u64;
                    return Ok((!piece.is_empty()).then_some(Event::Data(piece)));
                }
                State::Padding { left: 0 } => self.state = State::Header { zero: false },
                State::Padding { left } => {
                    let piece = split(input, *left as u64);
                    if piece.is_empty() {
                        return Ok(None);
                    }
                    *left -= piece.len();
                }
                State::End { trailing } => {
                    let rest = std::mem::take(input);
                    *trailing += rest.len() as u64;
                    if *trailing > MAX_TRAILING || rest.iter().any(|byte| *byte != 0) {
                        return Err(Error::Malformed("something follows its end"));
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// A whole block, from this input and what was left of the last one.
    fn block(&mut self, input: &mut &[u8]) -> Option<Block> {
        if self.partial.is_empty()
            && let Some((block, rest)) = input.split_first_chunk()
        {
            *input = rest;
            return Some(*block);
        }
        let missing = BLOCK.saturating_sub(self.partial.len());
        self.partial.extend_from_slice(split(input, missing as u64));
        let block = Block::try_from(self.partial.as_slice()).ok()?;
        self.partial.clear();
        Some(block)
    }

    fn header<'a>(&mut self, block: &Block) -> Result<Option<Event<'a>>, Error> {
        if block.iter().all(|byte| *byte == 0) {
            self.state = match self.state {
                State::Header { zero: true } => State::End { trailing: 0 },
                _ => State::Header { zero: true },
            };
            return Ok(None);
        }
        let header = Header::parse(block)?;
        let pad = padding(header.size);
        match header.kind {
            b'x' | b'g' | b'L' | b'K' => {
                self.extensions += 1;
                if header.size > MAX_EXTENDED || self.extensions > MAX_EXTENSIONS {
                    return Err(Error::Malformed("an extended header is too long"));
                }
                self.state = State::Extended {
                    kind: header.kind,
                    text: Vec::new(),
                    left: header.size,
                    padding: pad,
                };
                Ok(None)
            }
            _ => {
                self.extensions = 0;
                let extended = std::mem::take(&mut self.extended);
                self.entry(header, extended)
            }
        }
    }

    fn extend(&mut self, kind: u8, mut text: Vec<u8>) -> Result<(), Error> {
        match kind {
            b'x' => self.extended.read(&text)?,
            // GNU's long names end with a NUL.
            b'L' | b'K' => {
                if text.last() == Some(&0) {
                    text.pop();
                }
                let place = if kind == b'L' {
                    &mut self.extended.name
                } else {
                    &mut self.extended.link
                };
                *place = Some(text);
            }
            // Of all entries: comments, mostly.
            _ => {}
        }
        Ok(())
    }

    fn entry<'a>(
        &mut self,
        header: Header,
        extended: Extended,
    ) -> Result<Option<Event<'a>>, Error> {
        let name = extended
            .sparse_name
            .or(extended.name)
            .unwrap_or(header.name);
        let kind = match header.kind {
            // Before POSIX, a slash made a folder.
            0 if name.ends_with(b"/") => Kind::Folder,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::SymbolicLink,
            b'3' => Kind::CharacterDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            _ => {
                return Err(Error::refused(
                    &name,
                    "it is of a kind that is not known here",
                ));
            }
        };
        let narrow = |id: u64| {
            u32::try_from(id).map_err(|_| Error::Malformed("an owner is no number of 32 bits"))
        };
        let stored = if kind == Kind::File {
            extended.size.unwrap_or(header.size)
        } else {
            0
        };
        let is_sparse = match (extended.sparse_major, extended.sparse_minor) {
            (None, None) => false,
            (Some(1), Some(0)) if kind == Kind::File => true,
            _ => return Err(Error::Malformed("a sparse file in a form other than 1.0")),
        };
        let mut entry = Box::new(Entry {
            kind,
            name,
            link: extended.link.unwrap_or(header.link),
            mode: header.mode,
            uid: narrow(extended.uid.unwrap_or(header.uid))?,
            gid: narrow(extended.gid.unwrap_or(header.gid))?,
            modified: extended.modified.unwrap_or(Time {
                seconds: header.seconds,
                nanoseconds: 0,
            }),
            size: stored,
            segments: None,
            device: (header.major, header.minor),
        });
        let padding = padding(stored);
        if is_sparse {
            entry.size = extended
                .sparse_size
                .ok_or(Error::Malformed("a sparse file has no size"))?;
            self.state = State::Map {
                entry,
                reader: MapReader::default(),
                left: stored,
                padding,
            };
            return Ok(None);
        }
        self.state = match kind {
            Kind::File => State::Content {
                left: stored,
                padding,
            },
            _ => State::Header { zero: false },
        };
        Ok(Some(Event::Entry(entry)))
    }

    fn map<'a>(&mut self, block: &Block) -> Result<Option<Event<'a>>, Error> {
        let State::Map {
            entry,
            reader,
            left,
            padding,
        } = &mut self.state
        else {
            return Ok(None);
        };
        *left = left.checked_sub(BLOCK as u64).ok_or(Error::Malformed(
            "a sparse file's list is longer than the file",
        ))?;
        let Some(segments) = reader.take(block, entry.size)? else {
            return Ok(None);
        };
        let data: u64 = segments.iter().map(|segment| segment.length).sum();
        if data != *left {
            return Err(Error::Malformed("a sparse file's parts are not its data"));
        }
        entry.segments = Some(segments);
        let (left, padding) = (*left, *padding);
        let content = State::Content { left, padding };
        match std::mem::replace(&mut self.state, content) {
            State::Map { entry, .. } => Ok(Some(Event::Entry(entry))),
            _ => Ok(None),
        }
    }
}

/// Takes up to so many bytes off the input.
fn split<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let count = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    let (piece, rest) = input.split_at_checked(count).unwrap_or((input, &[]));
    *input = rest;
    piece
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::write_entry;
    use proptest::prelude::*;

    /// What an archive holds, with the data of each file in one piece; and whether it has an end.
    type Decoded = (Vec<(Entry, Vec<u8>)>, bool);

    fn decode(pieces: &[&[u8]]) -> Result<Decoded, Error> {
        let mut decoder = Decoder::new();
        let mut entries: Vec<(Entry, Vec<u8>)> = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while let Some(event) = decoder.next(&mut rest)? {
                match event {
                    Event::Entry(entry) => entries.push((*entry, Vec::new())),
                    Event::Data(data) => entries.last_mut().unwrap().1.extend_from_slice(data),
                    Event::EndOfFile => {}
                }
            }
            assert!(rest.is_empty());
        }
        Ok((entries, decoder.is_at_end()))
    }

    /// The same bytes in pieces.
    fn split_at<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect()
    }

    fn entry(name: Vec<u8>, size: u64) -> Entry {
        Entry {
            kind: Kind::File,
            name,
            link: Vec::new(),
            mode: 0o640,
            uid: 5_000_000,
            gid: 7,
            modified: Time {
                seconds: -3,
                nanoseconds: 250_000_000,
            },
            size,
            segments: None,
            device: (0, 0),
        }
    }

    fn archive(contents: &[Vec<u8>]) -> (Vec<u8>, Vec<(Entry, Vec<u8>)>) {
        let mut bytes = Vec::new();
        let mut entries = Vec::new();
        for (index, content) in contents.iter().enumerate() {
            let mut own = entry(
                format!("{}/{index}", "long".repeat(index * 20)).into_bytes(),
                content.len() as u64,
            );
            if index % 3 == 1 {
                own.kind = Kind::SymbolicLink;
                own.size = 0;
                own.link = vec![b't'; 150];
            }
            if index % 3 == 2 {
                own.size = 1_000_000 + content.len() as u64;
                own.segments = Some(vec![Segment {
                    offset: 1_000_000,
                    length: content.len() as u64,
                }]);
            }
            if content.is_empty() && own.segments.is_some() {
                own.segments = Some(Vec::new());
            }
            write_entry(&mut bytes, &own);
            let data = if own.kind == Kind::File {
                content.clone()
            } else {
                Vec::new()
            };
            bytes.extend_from_slice(&data);
            bytes.resize(bytes.len() + padding(bytes.len() as u64), 0);
            entries.push((own, data));
        }
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        (bytes, entries)
    }

    #[test]
    fn names_of_gnu_and_global_headers_are_read() {
        let mut bytes = Vec::new();
        let long = vec![b'n'; 300];
        let global = Header {
            name: b"g".to_vec(),
            kind: b'g',
            size: 14,
            ..Header::default()
        };
        bytes.extend_from_slice(&global.encode());
        bytes.extend_from_slice(b"14 comment=hi\n");
        bytes.resize(1024, 0);
        let gnu = Header {
            name: b"././@LongLink".to_vec(),
            kind: b'L',
            size: 301,
            ..Header::default()
        };
        bytes.extend_from_slice(&gnu.encode());
        bytes.extend_from_slice(&long);
        bytes.resize(2048, 0);
        bytes.extend_from_slice(
            &Header {
                name: b"short".to_vec(),
                kind: b'5',
                ..Header::default()
            }
            .encode(),
        );
        let (entries, is_at_end) = decode(&[&bytes]).unwrap();
        assert_eq!(entries[0].0.name, long);
        assert_eq!(entries[0].0.kind, Kind::Folder);
        assert!(!is_at_end, "an archive without an end is cut off");
    }

    #[test]
    fn endless_headers_and_what_follows_the_end_are_malformed() {
        let global = Header {
            kind: b'g',
            ..Header::default()
        }
        .encode();
        assert!(decode(&[&global.repeat(100)]).is_err());
        let long = Header {
            kind: b'x',
            size: 1 << 30,
            ..Header::default()
        }
        .encode();
        assert!(decode(&[&long]).is_err());
        assert!(decode(&[&[0; 10_240]]).unwrap().1);
        assert!(decode(&[&[0; 1024], b"x"]).is_err());
        assert!(decode(&[&[0; 1024], &[0; 2 << 20]]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn any_split_gives_the_same_entries(
            contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1500), 0..6),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let (bytes, entries) = archive(&contents);
            prop_assert_eq!(decode(&split_at(&bytes, &cuts)).unwrap(), (entries.clone(), true));
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(decode(&single).unwrap(), (entries, true));
        }

        #[test]
        fn an_archive_that_is_changed_anywhere_is_read_or_refused(
            contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 1..4),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            end in any::<prop::sample::Index>(),
        ) {
            let (mut bytes, _) = archive(&contents);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode(&[&bytes]);
            // Cut off anywhere before its end, it has none.
            let (bytes, _) = archive(&contents);
            let end = end.index(bytes.len() - BLOCK);
            prop_assert!(!decode(&[&bytes[..end]]).unwrap().1);
        }

        #[test]
        fn any_split_of_any_bytes_is_read_or_refused_alike(
            contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..4),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            tail in proptest::collection::vec(any::<u8>(), 0..3000),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            // Bytes alone are hardly ever a header: some begin as an archive, and are spoilt.
            let (mut bytes, _) = archive(&contents);
            if !tail.is_empty() {
                bytes.truncate(bytes.len() - 2 * BLOCK);
                bytes.extend_from_slice(&tail);
            }
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let whole = format!("{:?}", decode(&[&bytes]));
            prop_assert_eq!(&format!("{:?}", decode(&split_at(&bytes, &cuts))), &whole);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&format!("{:?}", decode(&single)), &whole);
        }
    }
}
