//! Where bytes are on their way between a program and what it reads and writes.

/// Most bytes that are on their way at a time.
const MOST: usize = 64 << 10;

/// Bytes of a sandbox, for one program after the other. It grows to what is asked for: a program
/// that reads and writes nothing has none.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    /// The first bytes, as many as are wanted, or as there can be. What is in them is anything.
    pub fn first(&mut self, wanted: usize) -> &mut [u8] {
        let length = wanted.min(MOST);
        if self.bytes.len() < length {
            self.bytes.resize(length, 0);
        }
        self.bytes.get_mut(..length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_as_much_as_is_wanted_up_to_a_limit() {
        let mut buffer = Buffer::default();
        for (wanted, length) in [(0, 0), (5, 5), (usize::MAX, MOST), (7, 7)] {
            assert_eq!(buffer.first(wanted).len(), length);
        }
    }
}
