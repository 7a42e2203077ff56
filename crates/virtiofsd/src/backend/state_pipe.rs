//! The descriptor that a state is written to or read from. Who has its other end may neither move nor close it.
//!
//! Until the front end asks for the outcome, a transfer takes as long as it takes. By then everything has been moved (a
//! front end closes its end before it asks, or has read to the end), so that only a moment is left to what is late. And
//! nothing is waited for when the front end has gone.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// How long a transfer may go on after the front end has asked for its outcome.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes that can be written without waiting where any can (`PIPE_BUF`).
const CHUNK: usize = 4096;

/// Tells a transfer what its front end does.
#[derive(Debug)]
pub struct FrontEnd {
    news: EventFd,
    gone: AtomicBool,
}

impl FrontEnd {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            news: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            gone: AtomicBool::new(false),
        })
    }

    /// It waits for the outcome.
    pub fn asks(&self) {
        // A full counter is set already.
        let _ = self.news.write(1);
    }

    /// Its connection has ended.
    pub fn goes(&self) {
        self.gone.store(true, Ordering::Release);
        self.asks();
    }
}

/// The descriptor, as one transfer sees it.
#[derive(Debug)]
pub struct StatePipe {
    file: File,
    front_end: Arc<FrontEnd>,
    deadline: Option<Instant>,
}

impl StatePipe {
    pub fn new(file: File, front_end: Arc<FrontEnd>) -> Self {
        Self {
            file,
            front_end,
            deadline: None,
        }
    }

    /// Waits until the descriptor can be read or written.
    fn wait(&mut self, event: libc::c_short) -> io::Result<()> {
        loop {
            let watch = |number, events| libc::pollfd {
                fd: number,
                events,
                revents: 0,
            };
            // It stays readable; what it says is known then.
            let news = match self.deadline {
                None => self.front_end.news.as_raw_fd(),
                Some(_) => -1,
            };
            let mut polled = [
                watch(self.file.as_raw_fd(), event),
                watch(news, libc::POLLIN),
            ];
            // SAFETY: two entries, as is said.
            let ready = unsafe { libc::poll(polled.as_mut_ptr(), 2, self.patience()) };
            if ready < 0 {
                let error = io::Error::last_os_error();
                match error.kind() {
                    io::ErrorKind::Interrupted => continue,
                    _ => return Err(error),
                }
            }
            let [file, news] = polled.map(|entry| entry.revents != 0);
            if news {
                if self.front_end.gone.load(Ordering::Acquire) {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                self.deadline = Some(Instant::now() + GRACE);
            }
            if file {
                return Ok(());
            }
            if ready == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "The front end asks for the outcome of a transfer whose other end is still open",
                ));
            }
        }
    }

    /// Milliseconds until the deadline, for ever without one.
    fn patience(&self) -> libc::c_int {
        let left = self
            .deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        left.map_or(-1, |left| {
            libc::c_int::try_from(left.as_millis()).unwrap_or(libc::c_int::MAX)
        })
    }
}

impl Read for StatePipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(libc::POLLIN)?;
        self.file.read(buffer)
    }
}

impl Write for StatePipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(libc::POLLOUT)?;
        self.file.write(bytes.get(..CHUNK).unwrap_or(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
