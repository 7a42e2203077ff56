//! LZ4's legacy frame, which Linux's build uses for its payload.
//!
//! A magic number, then blocks: a 32-bit little-endian length and as many bytes, each of which
//! unpacks to at most 8 MiB. The kernel's build appends the unpacked size as 32 bits.

use std::io::{self, Read, Write};

/// First bytes of a legacy frame.
pub(super) const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Largest unpacked block, in bytes.
const BLOCK: usize = 8 << 20;
/// Largest packed block: what does not compress grows by 1/255 and a little.
const PACKED_BLOCK: usize = BLOCK + BLOCK / 255 + 16;

/// What is wrong with a frame.
#[derive(Debug, thiserror::Error)]
pub enum Lz4Error {
    /// The stream ends in the middle of a block.
    #[error("LZ4 stream ends in the middle of a block")]
    Truncated,
    /// A block announces a length that no block has.
    #[error("LZ4 block of {0} bytes is longer than any can be")]
    BlockLength(u32),
    /// A block does not unpack.
    #[error("LZ4 block is corrupt")]
    Corrupt(#[from] lz4_flex::block::DecompressError),
    /// The stream unpacks to another size than it announces.
    #[error("LZ4 stream unpacks to {actual} bytes or more and announces {expected}")]
    Size {
        /// Size that the stream announces.
        expected: u64,
        /// Size that was reached.
        actual: u64,
    },
    /// Reading the packed or writing the unpacked bytes failed.
    #[error("LZ4 stream cannot be copied")]
    Io(#[from] io::Error),
}

/// Unpacks `length` bytes of `input` (magic number included, the appended size excluded), which
/// must come to exactly `expected` bytes. Holds one block at a time.
pub(super) fn unpack(
    input: &mut impl Read,
    length: u64,
    expected: u64,
    output: &mut impl Write,
) -> Result<(), Lz4Error> {
    let mut rest = length;
    let mut actual = 0;
    let mut packed = Vec::new();
    let mut block = vec![0; BLOCK];
    while rest > 0 {
        let mut word = [0; 4];
        take(input, &mut word, &mut rest)?;
        if word == MAGIC {
            continue;
        }
        let size = u32::from_le_bytes(word);
        let size = usize::try_from(size)
            .ok()
            .filter(|&size| size <= PACKED_BLOCK)
            .ok_or(Lz4Error::BlockLength(size))?;
        packed.resize(size, 0);
        take(input, &mut packed, &mut rest)?;
        let unpacked = lz4_flex::block::decompress_into(&packed, &mut block)?;
        actual += unpacked as u64;
        if actual > expected {
            break;
        }
        output.write_all(block.get(..unpacked).unwrap_or_default())?;
    }
    if actual == expected {
        Ok(())
    } else {
        Err(Lz4Error::Size { expected, actual })
    }
}

fn take(input: &mut impl Read, buffer: &mut [u8], rest: &mut u64) -> Result<(), Lz4Error> {
    *rest = rest
        .checked_sub(buffer.len() as u64)
        .ok_or(Lz4Error::Truncated)?;
    input
        .read_exact(buffer)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Lz4Error::Truncated,
            _ => error.into(),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(blocks: &[&[u8]]) -> Vec<u8> {
        let mut frame = MAGIC.to_vec();
        for block in blocks {
            let packed = lz4_flex::block::compress(block);
            frame.extend((packed.len() as u32).to_le_bytes());
            frame.extend(packed);
        }
        frame
    }

    fn run(frame: &[u8], expected: u64) -> Result<Vec<u8>, Lz4Error> {
        let mut output = Vec::new();
        unpack(&mut &*frame, frame.len() as u64, expected, &mut output)?;
        Ok(output)
    }

    #[test]
    fn blocks_unpack_in_their_order() {
        let whole = [vec![b'a'; 100_000], b"tail".to_vec()];
        let frame = frame(&[&whole[0], &whole[1]]);
        assert_eq!(run(&frame, 100_004).unwrap(), whole.concat());
    }

    #[test]
    fn a_size_that_does_not_come_true_is_an_error() {
        let frame = frame(&[b"four"]);
        for expected in [0, 3, 5] {
            assert!(matches!(run(&frame, expected), Err(Lz4Error::Size { .. })));
        }
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let frame = frame(&[b"some text that is long enough"]);
        for length in 5..frame.len() {
            assert!(matches!(
                run(&frame[..length], 29),
                Err(Lz4Error::Truncated)
            ));
        }
    }

    #[test]
    fn an_announced_four_gigabyte_block_takes_no_memory() {
        let mut frame = MAGIC.to_vec();
        frame.extend(u32::MAX.to_le_bytes());
        assert!(matches!(run(&frame, 1), Err(Lz4Error::BlockLength(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_unpack_or_fail_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut frame = MAGIC.to_vec();
            frame.extend((bytes.len() as u32).to_le_bytes());
            frame.extend(&bytes);
            let _ = run(&frame, 1 << 20);
            let _ = run(&bytes, 1 << 20);
        }
    }
}
