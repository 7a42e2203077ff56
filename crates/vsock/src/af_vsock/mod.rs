//! The host's end of guests whose vsock device is the kernel's: `AF_VSOCK` sockets (vsock(7)),
//! bridged to Unix ones.
//!
//! A host has one address, CID 2. So a process has one listening socket for a port, whatever the
//! number of its guests; who connects is told apart by the context ID, which the kernel vouches
//! for, and goes to the [`AfVsockListener`] of that guest. Connections of strangers, which are
//! other machines of this host and its own programs, are closed. The socket is there from the first
//! listener of a port to its last.
//!
//! One thread (`host`) does the work for all guests, and ends with the last of them. What programs
//! get are plain Unix sockets: end of file, half-close and back-pressure come through, and a
//! connection that breaks shows as its end.

mod bridge;
mod error;
mod host;
mod inbox;
mod registry;
mod sockets;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

pub use self::error::AfVsockError;
use self::host::{Done, Host};
use self::inbox::Inbox;
use self::sockets::{AfVsock, Sockets};

/// Longest that a read of a connection from [`AfVsockListener::accept`] blocks for.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// The host's end of one guest. Dropping it ends the guest's connections.
#[derive(Debug)]
pub struct AfVsockGuest {
    end: GuestEnd<AfVsock>,
}

impl AfVsockGuest {
    /// The host's end of the guest with this context ID. The guest need not be there yet.
    ///
    /// # Errors
    ///
    /// Where a descriptor or a thread cannot be made.
    pub fn new(cid: u32) -> Result<Self, AfVsockError> {
        static HOST: Mutex<Weak<Host<AfVsock>>> = Mutex::new(Weak::new());
        let mut current = HOST.lock().unwrap_or_else(PoisonError::into_inner);
        let host = match current.upgrade() {
            Some(host) => host,
            None => Arc::new(Host::start(AfVsock)?),
        };
        *current = Arc::downgrade(&host);
        Ok(Self {
            end: GuestEnd { host, cid },
        })
    }

    /// The guest's context ID.
    #[must_use]
    pub fn cid(&self) -> u32 {
        self.end.cid
    }

    /// Listens for the guest's connections to a port of the host. At most `waiting` wait to be
    /// taken: one more is closed, but takes the place of the other where there is a single place,
    /// which is for an agent that dials again. As many may wait in the kernel before
    /// (up to its `net.core.somaxconn`), beyond which the guest is refused.
    ///
    /// # Errors
    ///
    /// [`AfVsockError::PortTaken`] where somebody else listens there,
    /// [`AfVsockError::Unavailable`] where this host has no `AF_VSOCK`, and others of listening.
    pub fn listen(&self, port: u32, waiting: usize) -> Result<AfVsockListener, AfVsockError> {
        let listener = self.end.listen(port, waiting)?;
        Ok(AfVsockListener { listener })
    }

    /// Connects to a port of the guest. `done` hears of it once, on another thread, and must not
    /// block; the stream never blocks.
    ///
    /// # Errors
    ///
    /// Where it fails at once, since there is no such guest for example: `done` is not called then.
    /// What it hears else: [`AfVsockError::Refused`] where nobody listens there,
    /// [`AfVsockError::TimedOut`], and [`AfVsockError::Closed`] where the guest is dropped, or the
    /// attempt cancelled, first.
    pub fn connect(
        &self,
        port: u32,
        timeout: Duration,
        done: impl FnOnce(Result<UnixStream, AfVsockError>) + Send + 'static,
    ) -> Result<AfVsockAttempt, AfVsockError> {
        let attempt = self.end.connect(port, timeout, Box::new(done))?;
        Ok(AfVsockAttempt { attempt })
    }
}

/// An attempt to connect to a guest. It goes on when this is dropped.
#[derive(Debug)]
pub struct AfVsockAttempt {
    attempt: Attempt<AfVsock>,
}

impl AfVsockAttempt {
    /// Closes its socket, rather than when the guest answers or the time is over. Does nothing where
    /// it is decided already.
    pub fn cancel(&self) {
        self.attempt.cancel();
    }
}

/// Hands out the connections of one guest to one port. Dropping it stops the listening; streams
/// that were taken live on.
#[derive(Debug)]
pub struct AfVsockListener {
    listener: Listener<AfVsock>,
}

impl AfVsockListener {
    /// The connection that waits longest, if one does. The stream never blocks.
    #[must_use]
    pub fn take(&self) -> Option<UnixStream> {
        self.listener.inbox.take()
    }

    /// Waits for a connection. The stream blocks; a read that waits for half a minute fails with
    /// `WouldBlock` (`SO_RCVTIMEO`), which [`UnixStream::set_read_timeout`] changes.
    ///
    /// # Errors
    ///
    /// [`AfVsockError::TimedOut`] when nobody comes in time.
    pub fn accept(&self, timeout: Duration) -> Result<UnixStream, AfVsockError> {
        self.listener.accept(timeout)
    }

    /// A stream that gets a byte for each arrival, for programs that wait for several things. It
    /// never blocks. Whoever was told of some takes connections until there are no more.
    ///
    /// # Errors
    ///
    /// Where it cannot be duplicated.
    pub fn arrivals(&self) -> Result<OwnedFd, AfVsockError> {
        let told = self.listener.inbox.told().try_clone_to_owned();
        told.map_err(|source| AfVsockError::Create {
            what: "a copy of a descriptor",
            source,
        })
    }
}

impl AsFd for AfVsockListener {
    /// Readable when a connection may wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.inbox.told()
    }
}

#[derive(Debug)]
struct GuestEnd<S: Sockets> {
    host: Arc<Host<S>>,
    cid: u32,
}

impl<S: Sockets> GuestEnd<S> {
    fn listen(&self, port: u32, waiting: usize) -> Result<Listener<S>, AfVsockError> {
        let inbox = Inbox::new(waiting).map_err(AfVsockError::create("a socket pair"))?;
        let inbox = Arc::new(inbox);
        self.host.listen(port, self.cid, Arc::clone(&inbox))?;
        Ok(Listener {
            host: Arc::clone(&self.host),
            cid: self.cid,
            port,
            inbox,
        })
    }

    fn connect(
        &self,
        port: u32,
        timeout: Duration,
        done: Done,
    ) -> Result<Attempt<S>, AfVsockError> {
        let id = self.host.connect(self.cid, port, timeout, done)?;
        Ok(Attempt {
            host: Arc::downgrade(&self.host),
            id,
        })
    }
}

impl<S: Sockets> Drop for GuestEnd<S> {
    fn drop(&mut self) {
        self.host.forget(self.cid);
    }
}

#[derive(Debug)]
struct Attempt<S: Sockets> {
    host: Weak<Host<S>>,
    id: u64,
}

impl<S: Sockets> Attempt<S> {
    fn cancel(&self) {
        if let Some(host) = self.host.upgrade() {
            host.cancel(self.id);
        }
    }
}

#[derive(Debug)]
struct Listener<S: Sockets> {
    host: Arc<Host<S>>,
    cid: u32,
    port: u32,
    inbox: Arc<Inbox>,
}

impl<S: Sockets> Listener<S> {
    fn accept(&self, timeout: Duration) -> Result<UnixStream, AfVsockError> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if let Some(stream) = self.inbox.take() {
                let blocking = stream
                    .set_nonblocking(false)
                    .and_then(|()| stream.set_read_timeout(Some(RECEIVE_TIMEOUT)));
                return match blocking {
                    Ok(()) => Ok(stream),
                    Err(source) => Err(AfVsockError::Create {
                        what: "a blocking stream",
                        source,
                    }),
                };
            }
            // A limit that no clock can hold is none.
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let mut told = [PollFd::new(&self.inbox, PollFlags::IN)];
            match poll(&mut told, left.as_ref()) {
                Ok(0) => {
                    return Err(AfVsockError::TimedOut {
                        what: "The wait for the guest's connection",
                        milliseconds: timeout.as_millis(),
                    });
                }
                Ok(_) => self.inbox.hear(),
                // A signal: the rest of the time is waited for.
                Err(Errno::INTR) => {}
                Err(errno) => return Err(AfVsockError::create("a wait")(errno)),
            }
        }
    }
}

impl<S: Sockets> Drop for Listener<S> {
    fn drop(&mut self) {
        self.host.stop_listening(self.port, self.cid);
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.told()
    }
}
