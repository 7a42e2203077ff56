//! One output of a command, kept up to a limit.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The most that a pipe holds unless somebody has enlarged it.
const CHUNK_BYTES: usize = 64 * 1024;

/// The reading end of a command's standard output or error.
#[derive(Debug)]
pub(crate) struct Capture {
    /// `None` once all writers have closed it.
    pipe: Option<File>,
    chunk: Vec<u8>,
    kept: Vec<u8>,
    limit: usize,
    cut: bool,
}

/// What an output has come to.
#[derive(Debug)]
pub(crate) struct Captured {
    /// The bytes up to the limit.
    pub(crate) bytes: Vec<u8>,
    /// The limit, if there was more.
    pub(crate) cut_at: Option<usize>,
}

impl Capture {
    /// Keeps at most `limit` bytes of what comes out of `pipe`.
    pub(crate) fn new(pipe: OwnedFd, limit: usize) -> Self {
        Self {
            pipe: Some(File::from(pipe)),
            chunk: vec![0; CHUNK_BYTES],
            kept: Vec::new(),
            limit,
            cut: false,
        }
    }

    /// The pipe to wait on, while it has writers.
    pub(crate) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads once; the pipe is readable. Bytes over the limit are read and dropped, so that the writer does not stall.
    pub(crate) fn read(&mut self) -> usize {
        let Some(pipe) = &mut self.pipe else { return 0 };
        let count = match pipe.read(&mut self.chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return 0,
            Err(_) => 0,
        };
        if count == 0 {
            self.pipe = None;
        }
        let read = self.chunk.get(..count).unwrap_or_default();
        let room = self.limit.saturating_sub(self.kept.len());
        self.cut |= read.len() > room;
        self.kept
            .extend_from_slice(read.get(..room.min(read.len())).unwrap_or_default());
        count
    }

    /// Reads what is in the pipe now, and no more: another process may go on writing.
    pub(crate) fn finish(mut self) -> Captured {
        let mut rest = self.pipe.as_ref().map_or(0, bytes_in_pipe);
        while rest > 0 && self.pipe.is_some() {
            rest = rest.saturating_sub(self.read());
        }
        Captured {
            bytes: self.kept,
            cut_at: self.cut.then_some(self.limit),
        }
    }
}

fn bytes_in_pipe(pipe: &File) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD stores one int, which lives through the call.
    unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    usize::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn capture(limit: usize) -> (Capture, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        (Capture::new(reader.into(), limit), writer)
    }

    #[test]
    fn an_output_keeps_its_limit_and_takes_the_rest_without_stalling() {
        let (mut capture, mut writer) = capture(5);
        writer.write_all(b"123").unwrap();
        assert_eq!(capture.read(), 3);
        writer.write_all(b"456").unwrap();
        assert_eq!(capture.read(), 3);
        writer.write_all(b"789").unwrap();
        let Captured { bytes, cut_at } = capture.finish();
        assert_eq!((bytes.as_slice(), cut_at), (&b"12345"[..], Some(5)));
    }

    #[test]
    fn an_output_of_exactly_its_limit_is_not_cut() {
        let (capture, mut writer) = capture(3);
        writer.write_all(b"123").unwrap();
        drop(writer);
        let Captured { bytes, cut_at } = capture.finish();
        assert_eq!((bytes.as_slice(), cut_at), (&b"123"[..], None));
    }

    #[test]
    fn finishing_takes_what_is_there_and_waits_for_no_writer() {
        let (capture, mut writer) = capture(100);
        writer.write_all(b"there").unwrap();
        assert_eq!(capture.finish().bytes, b"there");
        assert!(writer.write_all(b"too late").is_err());
    }

    #[test]
    fn a_closed_output_is_waited_for_no_longer() {
        let (mut capture, writer) = capture(100);
        drop(writer);
        assert_eq!(capture.read(), 0);
        assert!(capture.pipe().is_none());
    }
}
