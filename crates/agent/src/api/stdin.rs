//! The request's body on its way to a process: no faster than the process reads.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use hyper::body::{Bytes, Incoming};

use super::specification::next_data;
use super::watched::{Watched, watch};

/// Ctrl-D: the end of the input, on a terminal.
const END_OF_TRANSMISSION: u8 = 4;

/// Where a process's standard input comes in.
#[derive(Debug)]
pub(crate) struct Input {
    file: Watched,
    is_terminal: bool,
}

impl Input {
    pub(crate) fn new(file: OwnedFd, is_terminal: bool) -> io::Result<Self> {
        Ok(Self {
            file: watch(file)?,
            is_terminal,
        })
    }

    /// Hands everything on, and closes at its end. What comes after the process has closed its side is dropped, so that the
    /// host is not held up.
    pub(crate) async fn fill(self, first: Bytes, mut body: Incoming) {
        let mut last = None;
        let mut next = Some(first);
        loop {
            if let Some(data) = next.take() {
                last = data.last().copied().or(last);
                if self.write(&data).await.is_err() {
                    break;
                }
            }
            next = match next_data(&mut body).await {
                Some(Ok(data)) => Some(data),
                // A request that broke off ends its process too; that is not this task's to do.
                Some(Err(_)) => return,
                None if self.is_terminal => {
                    // Within a line the first one only hands the line on.
                    let count = if last.is_none_or(|last| last == b'\n') {
                        1
                    } else {
                        2
                    };
                    let _ = self
                        .write([END_OF_TRANSMISSION; 2].get(..count).unwrap_or_default())
                        .await;
                    return;
                }
                None => return,
            };
        }
        drop(self);
        while let Some(Ok(_)) = next_data(&mut body).await {}
    }

    async fn write(&self, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let mut ready = self.file.writable().await?;
            match ready.try_io(|file| write(file.get_ref(), rest)) {
                Ok(written) => rest = rest.get(written?..).unwrap_or_default(),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }
}

fn write(file: &OwnedFd, data: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the buffer is as long as told.
        let written = unsafe { libc::write(file.as_raw_fd(), data.as_ptr().cast(), data.len()) };
        match usize::try_from(written) {
            Ok(written) => return Ok(written),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
