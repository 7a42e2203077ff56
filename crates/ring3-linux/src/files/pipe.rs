//! Pipes of a program with itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::budget::{Budget, Charge};
use crate::frames::lock;

/// Bytes that a pipe holds.
pub const CAPACITY: usize = 64 << 10;

/// What both ends share.
#[derive(Debug)]
struct Pipe {
    state: Mutex<State>,
    _charge: Charge,
}

#[derive(Debug)]
struct State {
    bytes: VecDeque<u8>,
    has_reader: bool,
    has_writer: bool,
}

/// The end that is read.
#[derive(Debug)]
pub struct Reader(Arc<Pipe>);

/// The end that is written.
#[derive(Debug)]
pub struct Writer(Arc<Pipe>);

/// Makes a pipe.
pub fn pipe(budget: &Budget) -> Result<(Reader, Writer), Errno> {
    let pipe = Arc::new(Pipe {
        state: Mutex::new(State {
            bytes: VecDeque::new(),
            has_reader: true,
            has_writer: true,
        }),
        _charge: Charge::new(budget, CAPACITY as u64).map_err(|_| Errno::NFILE)?,
    });
    Ok((Reader(Arc::clone(&pipe)), Writer(pipe)))
}

impl Reader {
    /// Bytes that are there, and whether there may be more.
    pub fn ready(&self) -> (usize, bool) {
        let state = lock(&self.0.state);
        (state.bytes.len(), state.has_writer)
    }

    /// Gives bytes that lie together to `take`, which tells how many it took.
    pub fn read(
        &self,
        length: usize,
        take: impl FnOnce(&[u8]) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        let mut state = lock(&self.0.state);
        let (front, _) = state.bytes.as_slices();
        let length = length.min(front.len());
        let taken = take(front.get(..length).unwrap_or_default())?;
        state.bytes.drain(..taken.min(length));
        Ok(taken)
    }
}

impl Writer {
    /// Bytes that there is room for; `EPIPE` where nobody will read them.
    pub fn ready(&self) -> Result<usize, Errno> {
        let state = lock(&self.0.state);
        if !state.has_reader {
            return Err(Errno::PIPE);
        }
        Ok(CAPACITY - state.bytes.len().min(CAPACITY))
    }

    /// Writes bytes for which there is room.
    pub fn write(&self, bytes: &[u8]) {
        lock(&self.0.state).bytes.extend(bytes);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        lock(&self.0.state).has_reader = false;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.0.state).has_writer = false;
    }
}
