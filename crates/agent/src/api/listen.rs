//! Where the host's connections come in: a vsock port, or a Unix socket for tests.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, UnixAddr, VsockAddr, bind,
    getpeername, listen, socket,
};

use super::watched::{Watched, watch};
use super::{Address, PORT};
use crate::console::note;

/// `VMADDR_CID_HOST`: the only peer that may connect. Programs of the guest have other numbers, by the loopback transport
/// too.
const HOST_CID: u32 = 2;

/// A connection of the host's. tokio has no type for a stream socket of any family; it is only read, written and shut down.
pub(crate) type Socket = tokio::net::UnixStream;

/// A bound socket that takes connections already.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    is_vsock: bool,
}

/// The same, within the runtime.
#[derive(Debug)]
pub(crate) struct Listening {
    socket: Watched,
    is_vsock: bool,
}

impl Listener {
    pub(crate) fn bind(address: &Address) -> io::Result<Self> {
        Ok(match address {
            Address::Vsock => Self {
                socket: bound(
                    AddressFamily::Vsock,
                    &VsockAddr::new(libc::VMADDR_CID_ANY, PORT),
                )?,
                is_vsock: true,
            },
            Address::Unix(path) => Self {
                socket: bound(AddressFamily::Unix, &UnixAddr::new(path)?)?,
                is_vsock: false,
            },
        })
    }

    /// Within a runtime only.
    pub(crate) fn listen(self) -> io::Result<Listening> {
        Ok(Listening {
            socket: watch(self.socket)?,
            is_vsock: self.is_vsock,
        })
    }
}

fn bound(family: AddressFamily, address: &dyn SockaddrLike) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    bind(socket.as_raw_fd(), address)?;
    listen(&socket, Backlog::new(16)?)?;
    Ok(socket)
}

impl Listening {
    /// The host's next connection. Fails when the socket itself is of no use any more.
    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        loop {
            let accepted = {
                let mut ready = self.socket.readable().await?;
                match ready.try_io(|socket| accept(socket.get_ref())) {
                    Ok(accepted) => accepted,
                    Err(_would_block) => continue,
                }
            };
            match accepted {
                Ok(connection) if self.is_welcome(&connection) => {
                    return Socket::from_std(UnixStream::from(connection));
                }
                Ok(_stranger) => note(format_args!(
                    "a connection that is not the host's was closed"
                )),
                // That connection is lost; these are no reason to wait for the next one otherwise.
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn is_welcome(&self, connection: &OwnedFd) -> bool {
        !self.is_vsock
            || getpeername::<VsockAddr>(connection.as_raw_fd())
                .is_ok_and(|peer| peer.cid() == HOST_CID)
    }
}

fn accept(socket: impl AsFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: null pointers ask for no address.
    let fd = unsafe {
        libc::accept4(
            socket.as_fd().as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            flags,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ECONNABORTED | Errno::EINTR | Errno::EPROTO | Errno::ENOMEM | Errno::ENOBUFS)
    )
}
