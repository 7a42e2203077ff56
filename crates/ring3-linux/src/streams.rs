//! A program's stdin, stdout and stderr.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::options::{Input, Output};

/// Bytes that a descriptor that is ready to be written takes without waiting (`PIPE_BUF`).
const AT_ONCE: usize = 4096;

/// Which of the two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Stdout,
    Stderr,
}

/// Where the three lead.
#[derive(Debug)]
pub struct Streams<'run> {
    input: Source,
    /// Bytes of the input that were read.
    read: usize,
    outputs: [Sink<'run>; 2],
    pub collected: [Vec<u8>; 2],
    left: u64,
}

#[derive(Debug)]
enum Source {
    Bytes(Vec<u8>),
    Descriptor(Arc<OwnedFd>),
}

enum Sink<'run> {
    Discard,
    Collect,
    Writer(Box<dyn Write + Send + 'run>),
    Descriptor(Arc<OwnedFd>),
}

impl std::fmt::Debug for Sink<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sink").finish_non_exhaustive()
    }
}

impl<'run> From<Output<'run>> for Sink<'run> {
    fn from(output: Output<'run>) -> Self {
        match output {
            Output::Discard => Self::Discard,
            Output::Collect => Self::Collect,
            Output::Writer(writer) => Self::Writer(writer),
            Output::Descriptor(descriptor) => Self::Descriptor(Arc::new(descriptor)),
        }
    }
}

/// What became of bytes that were to be written.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// So many were.
    Bytes(usize),
    /// Those that the limit left were, and it is reached.
    Limit,
}

impl<'run> Streams<'run> {
    pub fn new(input: Input, stdout: Output<'run>, stderr: Output<'run>, limit: u64) -> Self {
        Self {
            input: match input {
                Input::Empty => Source::Bytes(Vec::new()),
                Input::Bytes(bytes) => Source::Bytes(bytes),
                Input::Descriptor(descriptor) => Source::Descriptor(Arc::new(descriptor)),
            },
            read: 0,
            outputs: [stdout.into(), stderr.into()],
            collected: [Vec::new(), Vec::new()],
            left: limit,
        }
    }

    /// The descriptor to wait for before reading.
    pub fn input(&self) -> Option<Arc<OwnedFd>> {
        match &self.input {
            Source::Descriptor(descriptor) => Some(Arc::clone(descriptor)),
            Source::Bytes(_) => None,
        }
    }

    /// The descriptor to wait for before writing.
    pub fn output(&self, which: Which) -> Option<Arc<OwnedFd>> {
        match self.outputs.get(which as usize)? {
            Sink::Descriptor(descriptor) => Some(Arc::clone(descriptor)),
            _ => None,
        }
    }

    /// Reads what is there.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match &self.input {
            Source::Bytes(bytes) => {
                let rest = bytes.get(self.read..).unwrap_or_default();
                let length = rest.len().min(buffer.len());
                for (to, from) in buffer.iter_mut().zip(rest) {
                    *to = *from;
                }
                self.read += length;
                Ok(length)
            }
            Source::Descriptor(descriptor) => rustix::io::read(descriptor, buffer),
        }
    }

    /// Bytes that can be read at once, where that is known.
    pub fn available(&self) -> usize {
        match &self.input {
            Source::Bytes(bytes) => bytes.len().saturating_sub(self.read),
            Source::Descriptor(_) => 0,
        }
    }

    /// Writes, to a descriptor only as much as it takes without waiting once it is ready.
    pub fn write(&mut self, which: Which, bytes: &[u8]) -> Result<Written, Errno> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let allowed = bytes.get(..bytes.len().min(most)).unwrap_or_default();
        let Some(output) = self.outputs.get_mut(which as usize) else {
            return Err(Errno::BADF);
        };
        let written = match output {
            Sink::Discard => allowed.len(),
            Sink::Collect => {
                if let Some(collected) = self.collected.get_mut(which as usize) {
                    collected.extend_from_slice(allowed);
                }
                allowed.len()
            }
            Sink::Writer(writer) => {
                let written = writer.write_all(allowed).and_then(|()| writer.flush());
                written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                allowed.len()
            }
            Sink::Descriptor(descriptor) => {
                let part = allowed
                    .get(..allowed.len().min(AT_ONCE))
                    .unwrap_or_default();
                rustix::io::write(descriptor, part)?
            }
        };
        self.left -= written as u64;
        if self.left == 0 && written < bytes.len() {
            return Ok(Written::Limit);
        }
        Ok(Written::Bytes(written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_stops_at_the_limit() {
        let mut streams = Streams::new(Input::Empty, Output::Collect, Output::Collect, 5);
        assert_eq!(streams.write(Which::Stdout, b"abc"), Ok(Written::Bytes(3)));
        assert_eq!(streams.write(Which::Stderr, b"de"), Ok(Written::Bytes(2)));
        assert_eq!(streams.write(Which::Stdout, b"f"), Ok(Written::Limit));
        assert_eq!(streams.collected, [b"abc".to_vec(), b"de".to_vec()]);
    }
}
