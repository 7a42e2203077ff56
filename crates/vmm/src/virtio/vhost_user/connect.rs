//! The socket to a back end.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::virtio::error::VirtioError;
use crate::virtio::plug::VhostUserPeer;

/// A connected socket in blocking mode.
pub(super) fn open(peer: VhostUserPeer, timeout: Duration) -> Result<UnixStream, VirtioError> {
    match peer {
        VhostUserPeer::Socket(path) => {
            connect(&path, timeout).map_err(|errno| VirtioError::Connect {
                path,
                source: match errno {
                    // The send timeout ends a connect, too.
                    Errno::AGAIN => std::io::ErrorKind::TimedOut.into(),
                    errno => errno.into(),
                },
            })
        }
        VhostUserPeer::Fd(descriptor) => adopt(descriptor),
    }
}

/// Connects; a listener with a full backlog that accepts nobody is waited for no longer than
/// `timeout`.
fn connect(path: &Path, timeout: Duration) -> Result<UnixStream, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    let address = SocketAddrUnix::new(path)?;
    rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address))?;
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(UnixStream::from(socket))
}

/// Takes a socket of the caller's, after a look at what it is.
fn adopt(descriptor: OwnedFd) -> Result<UnixStream, VirtioError> {
    let number = descriptor.as_raw_fd();
    let wrong = |source| VirtioError::NotAPeer {
        descriptor: number,
        source,
    };
    let refused = |errno: Errno| wrong(Some(errno.into()));
    let is_unix = socket_domain(&descriptor).map_err(refused)? == AddressFamily::UNIX;
    let is_stream = socket_type(&descriptor).map_err(refused)? == SocketType::STREAM;
    if !is_unix || !is_stream {
        return Err(wrong(None));
    }
    rustix::net::getpeername(&descriptor).map_err(refused)?;
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC).map_err(refused)?;
    let socket = UnixStream::from(descriptor);
    // The protocol code takes EAGAIN for a reason to try again at once.
    socket
        .set_nonblocking(false)
        .map_err(|error| wrong(Some(error)))?;
    Ok(socket)
}
