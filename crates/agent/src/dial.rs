//! The way to the host: one connection attempt at a time, and what its failure means.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrLike, UnixAddr, VsockAddr, connect, getsockopt,
    socket, sockopt,
};
use std::os::fd::AsRawFd;

/// The host's context identifier (`VMADDR_CID_HOST`).
const HOST_CID: u32 = 2;

/// Where the owner of the command channel listens.
#[derive(Debug)]
pub(crate) enum Address {
    /// A port of the host.
    Vsock {
        /// The context identifier to dial.
        cid: u32,
        /// The port there.
        port: u32,
    },
    /// A Unix socket, for an agent that is run by hand.
    Unix(PathBuf),
}

/// A connection that is being made. The socket becomes writable when it is decided.
#[derive(Debug)]
pub(crate) struct Attempt(OwnedFd);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// Nobody listens (any more). The host listens before it starts the guest, so its owner is gone.
    #[error("nobody listens on the host")]
    OwnerGone,
    /// This guest cannot reach any host.
    #[error("there is no vsock device ({0})")]
    NoDevice(Errno),
    /// Something that may pass: a timeout, a full backlog, a lack of memory.
    #[error("the host did not answer ({0})")]
    Passing(Errno),
}

impl From<Errno> for DialError {
    fn from(errno: Errno) -> Self {
        match errno {
            // A virtio-vsock host answers RST where nobody listens, which arrives as ECONNRESET. ENOENT: a Unix socket.
            Errno::ECONNREFUSED | Errno::ECONNRESET | Errno::ENOENT => Self::OwnerGone,
            Errno::EAFNOSUPPORT
            | Errno::ENODEV
            | Errno::ENXIO
            | Errno::ENETUNREACH
            | Errno::EADDRNOTAVAIL => Self::NoDevice(errno),
            _ => Self::Passing(errno),
        }
    }
}

impl Address {
    /// A port of the host.
    pub(crate) fn host(port: u32) -> Self {
        Self::Vsock {
            cid: HOST_CID,
            port,
        }
    }

    /// Starts to connect. Never blocks.
    pub(crate) fn dial(&self) -> Result<Attempt, DialError> {
        match self {
            Self::Vsock { cid, port } => start(AddressFamily::Vsock, &VsockAddr::new(*cid, *port)),
            Self::Unix(path) => start(AddressFamily::Unix, &UnixAddr::new(path)?),
        }
    }
}

fn start(family: AddressFamily, address: &dyn SockaddrLike) -> Result<Attempt, DialError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    match connect(socket.as_raw_fd(), address) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(Attempt(socket)),
        Err(errno) => Err(errno.into()),
    }
}

impl Attempt {
    /// The connected socket, once it has become writable.
    pub(crate) fn finish(self) -> Result<OwnedFd, DialError> {
        match getsockopt(&self.0, sockopt::SocketError)? {
            0 => Ok(self.0),
            errno => Err(Errno::from_raw(errno).into()),
        }
    }
}

impl AsFd for Attempt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_dial_means_that_the_owner_is_gone() {
        for errno in [Errno::ECONNREFUSED, Errno::ECONNRESET] {
            assert!(matches!(errno.into(), DialError::OwnerGone));
        }
    }

    #[test]
    fn a_missing_device_is_told_from_a_missing_owner() {
        for errno in [Errno::ENODEV, Errno::ENETUNREACH, Errno::EAFNOSUPPORT] {
            assert!(matches!(errno.into(), DialError::NoDevice(_)));
        }
    }

    #[test]
    fn a_timeout_may_pass() {
        assert!(matches!(Errno::ETIMEDOUT.into(), DialError::Passing(_)));
    }
}
