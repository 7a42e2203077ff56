//! Where the host's connections come in: a vsock port, or a Unix socket for tests.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

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
    /// The host's next connection. Fails only when the runtime ends.
    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        let mut patience = Patience::default();
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
                    match Socket::from_std(UnixStream::from(connection)) {
                        Ok(socket) => return Ok(socket),
                        Err(error) => note(format_args!("a connection was lost: {error}")),
                    }
                }
                Ok(_stranger) => note(format_args!(
                    "a connection that is not the host's was closed"
                )),
                Err(error) => patience.after(&error).await,
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

/// How long a listener waits that lacks something, such as descriptors. Nobody tells when there are some again: they may
/// be given back anywhere in this process, or in the guest.
const PAUSE: Duration = Duration::from_millis(100);

/// What a listener does about connections that cannot be accepted: none of them is a reason to stop listening.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    told: bool,
}

impl Patience {
    /// Returns when to try again.
    pub(crate) async fn after(&mut self, error: &io::Error) {
        if is_passing(error) {
            return;
        }
        if !std::mem::replace(&mut self.told, true) {
            note(format_args!("a connection has to wait: {error}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// That connection is lost, and the next one may be there.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ECONNABORTED | Errno::EINTR | Errno::EPROTO)
    )
}
