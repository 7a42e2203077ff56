//! The command channel: frames in, replies out. Nothing here blocks.
//!
//! A command is a u32 length (big-endian) and that many bytes. A reply is standard output and standard error in the
//! same form, and one byte of exit code.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// The longest frame, in either direction.
pub(crate) const FRAME_LIMIT: usize = 16 * 1024 * 1024;

const HEADER_BYTES: usize = size_of::<u32>();
/// How much is read at a time, so that memory grows with what has arrived and not with what was announced.
const CHUNK_BYTES: usize = 64 * 1024;

/// Why a connection can be used no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// The host closed it between two commands.
    #[error("the host has closed the channel")]
    Closed,
    /// The host closed it within a frame.
    #[error("the host has closed the channel within a command")]
    ClosedMidFrame,
    /// A frame over the limit was announced.
    #[error("a command of {0} bytes is over the limit of {FRAME_LIMIT}")]
    TooLong(usize),
    /// The transport failed.
    #[error("the channel has failed: {0}")]
    Io(#[from] io::Error),
}

/// What a command has come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    /// At most [`FRAME_LIMIT`] bytes.
    pub(crate) stdout: Vec<u8>,
    /// At most [`FRAME_LIMIT`] bytes.
    pub(crate) stderr: Vec<u8>,
    pub(crate) exit_code: u8,
}

impl Reply {
    /// The answer to a command that was not run at all.
    pub(crate) fn refusal(exit_code: u8, reason: &str) -> Self {
        Self {
            stdout: Vec::new(),
            stderr: format!("microvm-agent: {reason}\n").into_bytes(),
            exit_code,
        }
    }
}

/// A connection to the host that is in order.
#[derive(Debug)]
pub(crate) struct Connection {
    // Only read and written; std has no type for a stream socket of any family.
    stream: UnixStream,
    header: Vec<u8>,
    body: Vec<u8>,
}

impl Connection {
    /// Takes over a connected, non-blocking stream socket.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            stream: UnixStream::from(socket),
            header: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Takes in what is there. `None` until a command is complete; never reads past its end.
    pub(crate) fn receive(&mut self) -> Result<Option<Vec<u8>>, ChannelError> {
        if !fill(&mut self.stream, &mut self.header, HEADER_BYTES)? {
            return Ok(None);
        }
        let Some(header) = self.header.first_chunk() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if length > FRAME_LIMIT {
            return Err(ChannelError::TooLong(length));
        }
        match fill(&mut self.stream, &mut self.body, length) {
            Ok(false) => Ok(None),
            Ok(true) => {
                self.header.clear();
                Ok(Some(std::mem::take(&mut self.body)))
            }
            Err(ChannelError::Closed) => Err(ChannelError::ClosedMidFrame),
            Err(error) => Err(error),
        }
    }

    /// Writes as much of a reply as the host takes now; true when all is written.
    pub(crate) fn send(&mut self, outgoing: &mut Outgoing) -> Result<bool, ChannelError> {
        while let Some(rest) = outgoing.rest() {
            match self.stream.write(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => outgoing.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Tells the host that nothing more will come.
    pub(crate) fn finish(&self) {
        // Fails only where the connection is gone, which is the same to the host.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Reads until `buffer` holds `length` bytes; false when the stream has no more for now.
fn fill(
    stream: &mut UnixStream,
    buffer: &mut Vec<u8>,
    length: usize,
) -> Result<bool, ChannelError> {
    while buffer.len() < length {
        let start = buffer.len();
        buffer.resize(length.min(start.saturating_add(CHUNK_BYTES)), 0);
        let result = stream.read(buffer.get_mut(start..).unwrap_or_default());
        buffer.truncate(start.saturating_add(*result.as_ref().unwrap_or(&0)));
        match result {
            Ok(0) if start == 0 => return Err(ChannelError::Closed),
            Ok(0) => return Err(ChannelError::ClosedMidFrame),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// A reply on its way. Its parts stay apart: two outputs of 16 MiB are not copied into one.
#[derive(Debug)]
pub(crate) struct Outgoing {
    parts: [Vec<u8>; 5],
    part: usize,
    written: usize,
}

impl Outgoing {
    pub(crate) fn new(reply: Reply) -> Self {
        let Reply {
            stdout,
            stderr,
            exit_code,
        } = reply;
        let parts = [
            header(&stdout),
            stdout,
            header(&stderr),
            stderr,
            vec![exit_code],
        ];
        // The usual reply is short and travels in one packet.
        let total: usize = parts.iter().map(Vec::len).sum();
        let parts = if total <= CHUNK_BYTES {
            [
                parts.concat(),
                Vec::new(),
                Vec::new(),
                Vec::new(),
                Vec::new(),
            ]
        } else {
            parts
        };
        Self {
            parts,
            part: 0,
            written: 0,
        }
    }

    fn rest(&mut self) -> Option<&[u8]> {
        while self.parts.get(self.part)?.len() <= self.written {
            self.part = self.part.saturating_add(1);
            self.written = 0;
        }
        self.parts.get(self.part)?.get(self.written..)
    }

    fn advance(&mut self, count: usize) {
        self.written = self.written.saturating_add(count);
    }
}

fn header(content: &[u8]) -> Vec<u8> {
    u32::try_from(content.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes()
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Connection, UnixStream) {
        let (guest, host) = UnixStream::pair().unwrap();
        guest.set_nonblocking(true).unwrap();
        (Connection::new(guest.into()), host)
    }

    fn frame(content: &[u8]) -> Vec<u8> {
        [
            &u32::try_from(content.len()).unwrap().to_be_bytes(),
            content,
        ]
        .concat()
    }

    #[test]
    fn a_command_may_arrive_byte_by_byte() {
        let (mut connection, mut host) = pair();
        let bytes = frame(b"true");
        let (last, first) = bytes.split_last().unwrap();
        for byte in first {
            host.write_all(&[*byte]).unwrap();
            assert_eq!(connection.receive().unwrap(), None);
        }
        host.write_all(&[*last]).unwrap();
        assert_eq!(connection.receive().unwrap().unwrap(), b"true");
    }

    #[test]
    fn commands_sent_at_once_are_taken_one_by_one() {
        let (mut connection, mut host) = pair();
        host.write_all(&[frame(b"one"), frame(b""), frame(b"two")].concat())
            .unwrap();
        assert_eq!(connection.receive().unwrap().unwrap(), b"one");
        assert_eq!(connection.receive().unwrap().unwrap(), b"");
        assert_eq!(connection.receive().unwrap().unwrap(), b"two");
        assert_eq!(connection.receive().unwrap(), None);
    }

    #[test]
    fn a_command_over_the_limit_is_refused_by_its_length_alone() {
        let (mut connection, mut host) = pair();
        host.write_all(&u32::MAX.to_be_bytes()).unwrap();
        let error = connection.receive().unwrap_err();
        assert!(
            matches!(error, ChannelError::TooLong(0xffff_ffff)),
            "{error}"
        );
        assert!(connection.body.capacity() == 0);
    }

    #[test]
    fn an_announced_command_costs_no_memory_until_it_arrives() {
        let (mut connection, mut host) = pair();
        host.write_all(&u32::try_from(FRAME_LIMIT).unwrap().to_be_bytes())
            .unwrap();
        assert_eq!(connection.receive().unwrap(), None);
        assert!(connection.body.capacity() <= CHUNK_BYTES);
    }

    #[test]
    fn a_close_within_a_frame_is_told_from_one_between_frames() {
        for (sent, mid_frame) in [
            (&b""[..], false),
            (b"\0\0", true),
            (b"\0\0\0\x04", true),
            (b"\0\0\0\x04tr", true),
        ] {
            let (mut connection, mut host) = pair();
            host.write_all(sent).unwrap();
            drop(host);
            let error = connection.receive().unwrap_err();
            assert_eq!(
                matches!(error, ChannelError::ClosedMidFrame),
                mid_frame,
                "{sent:?}: {error}"
            );
        }
    }

    #[test]
    fn a_reply_is_both_outputs_and_the_exit_code() {
        let (mut connection, mut host) = pair();
        let reply = Reply {
            stdout: b"out".to_vec(),
            stderr: b"e".to_vec(),
            exit_code: 7,
        };
        assert!(connection.send(&mut Outgoing::new(reply)).unwrap());
        let mut bytes = [0; 13];
        host.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"\0\0\0\x03out\0\0\0\x01e\x07");
    }

    #[test]
    fn a_long_reply_goes_out_in_pieces_to_a_slow_host() {
        let (mut connection, mut host) = pair();
        let stdout: Vec<u8> = (0..3_000_000_u32).map(|index| index as u8).collect();
        let stderr = vec![b'e'; 1_000_000];
        let mut outgoing = Outgoing::new(Reply {
            stdout: stdout.clone(),
            stderr: stderr.clone(),
            exit_code: 255,
        });
        assert!(!connection.send(&mut outgoing).unwrap());

        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            host.read_to_end(&mut bytes).unwrap();
            bytes
        });
        connection.stream.set_nonblocking(false).unwrap();
        assert!(connection.send(&mut outgoing).unwrap());
        drop(connection);
        assert_eq!(
            reader.join().unwrap(),
            [frame(&stdout), frame(&stderr), vec![255]].concat()
        );
    }

    #[test]
    fn a_reply_to_a_host_that_is_gone_is_an_error() {
        let (mut connection, host) = pair();
        drop(host);
        assert!(
            connection
                .send(&mut Outgoing::new(Reply::default()))
                .is_err()
        );
    }
}
