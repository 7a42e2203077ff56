//! A program's stdin, stdout and stderr.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

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

/// A descriptor of the host, which others may share: the flag that it is not to wait is not set
/// for them. Pipes and terminals are opened once more, with it.
#[derive(Debug)]
struct Shared {
    descriptor: Arc<OwnedFd>,
    is_socket: bool,
}

impl Shared {
    fn new(descriptor: OwnedFd, mode: OFlags) -> Self {
        let kind = fstat(&descriptor).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let flags = mode | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let again = match kind {
            Ok(FileType::Fifo | FileType::CharacterDevice) => {
                let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
                openat(CWD, path, flags, Mode::empty()).ok()
            }
            _ => None,
        };
        Self {
            // Where that is not allowed, the one that there is has to do.
            descriptor: Arc::new(again.unwrap_or(descriptor)),
            is_socket: kind == Ok(FileType::Socket),
        }
    }

    fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        if self.is_socket {
            return Ok(recv(&self.descriptor, buffer, RecvFlags::DONTWAIT)?.0);
        }
        rustix::io::read(&self.descriptor, buffer)
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.is_socket {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            return send(&self.descriptor, bytes, flags);
        }
        rustix::io::write(&self.descriptor, bytes)
    }
}

#[derive(Debug)]
enum Source {
    Bytes(Vec<u8>),
    Descriptor(Shared),
}

enum Sink<'run> {
    Discard,
    Collect,
    Writer(Box<dyn Write + Send + 'run>),
    Descriptor(Shared),
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
            Output::Descriptor(descriptor) => {
                Self::Descriptor(Shared::new(descriptor, OFlags::WRONLY))
            }
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
                Input::Descriptor(descriptor) => {
                    Source::Descriptor(Shared::new(descriptor, OFlags::RDONLY))
                }
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
            Source::Descriptor(shared) => Some(Arc::clone(&shared.descriptor)),
            Source::Bytes(_) => None,
        }
    }

    /// The descriptor to wait for before writing.
    pub fn output(&self, which: Which) -> Option<Arc<OwnedFd>> {
        match self.outputs.get(which as usize)? {
            Sink::Descriptor(shared) => Some(Arc::clone(&shared.descriptor)),
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
            Source::Descriptor(shared) => shared.read(buffer),
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
            Sink::Descriptor(shared) => {
                let part = allowed
                    .get(..allowed.len().min(AT_ONCE))
                    .unwrap_or_default();
                shared.write(part)?
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

    #[test]
    fn nothing_waits_for_a_descriptor_that_somebody_else_has_emptied_or_filled() {
        let (reader, writer) = std::io::pipe().unwrap();
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let pairs: [(OwnedFd, OwnedFd); 2] =
            [(reader.into(), writer.into()), (one.into(), other.into())];
        for (reader, writer) in pairs {
            let before = rustix::fs::fcntl_getfl(&reader).unwrap();
            let same = reader.try_clone().unwrap();
            let (input, output) = (Input::Descriptor(reader), Output::Descriptor(writer));
            let mut streams = Streams::new(input, output, Output::Discard, u64::MAX);
            let mut buffer = [0; 100];
            assert_eq!(streams.read(&mut buffer), Err(Errno::AGAIN));
            let full = loop {
                if let Err(errno) = streams.write(Which::Stdout, &[7; AT_ONCE]) {
                    break errno;
                }
            };
            assert_eq!(full, Errno::AGAIN);
            assert_eq!(streams.read(&mut buffer), Ok(100));
            assert_eq!(rustix::fs::fcntl_getfl(&same).unwrap(), before);
        }
    }
}
