//! One block of 512 bytes in the ustar format: what an entry is, as far as it fits.

use crate::Error;
use crate::numbers::{parse, write_octal};

pub(crate) const BLOCK: usize = 512;
pub(crate) type Block = [u8; BLOCK];

const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const KIND: usize = 156;
const LINK: std::ops::Range<usize> = 157..257;
const MAGIC: std::ops::Range<usize> = 257..265;
const MAJOR: std::ops::Range<usize> = 329..337;
const MINOR: std::ops::Range<usize> = 337..345;
const PREFIX: std::ops::Range<usize> = 345..500;

/// The longest name that a header holds as it is.
pub(crate) const SHORT_NAME: usize = 100;

/// A header's fields, as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) size: u64,
    pub(crate) seconds: i64,
    pub(crate) link: Vec<u8>,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// Zeros that fill up the last block of a content.
pub(crate) fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if over == 0 { 0 } else { BLOCK - over }
}

impl Header {
    /// Takes a block apart that is not all zeros.
    pub(crate) fn parse(block: &Block) -> Result<Self, Error> {
        let field = |range: std::ops::Range<usize>| block.get(range).unwrap_or_default();
        let text = |range| {
            let bytes = field(range);
            bytes
                .split(|byte| *byte == 0)
                .next()
                .unwrap_or_default()
                .to_vec()
        };
        let unsigned = |range| {
            u64::try_from(parse(field(range))?)
                .map_err(|_| Error::Malformed("a number is below zero"))
        };
        let narrow = |range| {
            u32::try_from(unsigned(range)?).map_err(|_| Error::Malformed("a number is too large"))
        };
        if parse(field(CHECKSUM))? != i64::from(checksum(block)) {
            return Err(Error::Malformed("a header's checksum is wrong"));
        }
        let mut name = text(NAME);
        // The prefix is ustar's; GNU's old format has other things there.
        let is_ustar = field(MAGIC).starts_with(b"ustar\0");
        let prefix = text(PREFIX);
        if is_ustar && !prefix.is_empty() {
            name = [&prefix, &b"/"[..], &name].concat();
        }
        let kind = block.get(KIND).copied().unwrap_or_default();
        let is_device = matches!(kind, b'3' | b'4');
        Ok(Self {
            name,
            kind,
            mode: narrow(MODE)? & 0o7777,
            uid: unsigned(UID)?,
            gid: unsigned(GID)?,
            size: unsigned(SIZE)?,
            seconds: parse(field(MTIME))?,
            link: text(LINK),
            major: if is_device { narrow(MAJOR)? } else { 0 },
            minor: if is_device { narrow(MINOR)? } else { 0 },
        })
    }

    /// The block. What does not fit (a pax header has it) is cut off or zero.
    pub(crate) fn encode(&self) -> Block {
        let mut block = [0; BLOCK];
        let mut text = |range: std::ops::Range<usize>, bytes: &[u8]| {
            for (to, from) in block
                .get_mut(range)
                .unwrap_or_default()
                .iter_mut()
                .zip(bytes)
            {
                *to = *from;
            }
        };
        text(NAME, &self.name);
        text(LINK, &self.link);
        text(MAGIC, b"ustar\x0000");
        text(KIND..KIND + 1, &[self.kind]);
        // For the sum, its own field counts as spaces.
        text(CHECKSUM, b"        ");
        let numbers = [
            (MODE, u64::from(self.mode)),
            (UID, self.uid),
            (GID, self.gid),
            (SIZE, self.size),
            (MTIME, u64::try_from(self.seconds).unwrap_or(0)),
            (MAJOR, u64::from(self.major)),
            (MINOR, u64::from(self.minor)),
        ];
        for (range, value) in numbers {
            let field = block.get_mut(range).unwrap_or_default();
            if !write_octal(field, value) {
                write_octal(field, 0);
            }
        }
        let sum = checksum(&block);
        // Six digits, NUL, space.
        write_octal(block.get_mut(148..155).unwrap_or_default(), u64::from(sum));
        block
    }
}

fn checksum(block: &Block) -> u32 {
    block
        .iter()
        .enumerate()
        .map(|(index, byte)| {
            let byte = if CHECKSUM.contains(&index) {
                b' '
            } else {
                *byte
            };
            u32::from(byte)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            name: b"folder/file".to_vec(),
            kind: b'0',
            mode: 0o4755,
            uid: 1000,
            gid: 0o7_777_777,
            size: 0o77_777_777_777,
            seconds: 1_700_000_000,
            link: vec![b'l'; 100],
            ..Header::default()
        }
    }

    #[test]
    fn a_header_comes_back_as_it_was() {
        assert_eq!(Header::parse(&header().encode()).unwrap(), header());
        let device = Header {
            kind: b'3',
            major: 8,
            minor: 1,
            ..header()
        };
        assert_eq!(Header::parse(&device.encode()).unwrap(), device);
    }

    #[test]
    fn a_prefix_is_a_part_of_the_name() {
        let mut block = Header {
            name: b"file".to_vec(),
            ..header()
        }
        .encode();
        block[345..350].copy_from_slice(b"a/b/c");
        let sum = checksum(&block);
        write_octal(&mut block[148..155], u64::from(sum));
        assert_eq!(Header::parse(&block).unwrap().name, b"a/b/c/file");
    }

    proptest! {
        #[test]
        fn any_block_is_read_or_refused(block in proptest::collection::vec(any::<u8>(), BLOCK)) {
            let mut block: Block = block.try_into().unwrap();
            let _ = Header::parse(&block);
            // With a right sum the other fields are looked at.
            let sum = checksum(&block);
            write_octal(&mut block[148..155], u64::from(sum));
            block[155] = b' ';
            let _ = Header::parse(&block);
        }

        #[test]
        fn a_changed_bit_is_found(index in 0..BLOCK, bit in 0..8_u32) {
            let mut block = header().encode();
            block[index] ^= 1 << bit;
            // In the sum's own field a bit may be one that says nothing, such as the space behind it.
            prop_assert!(Header::parse(&block).is_err() || CHECKSUM.contains(&index));
        }
    }
}
