//! The system calls of `AF_VSOCK` sockets (vsock(7)).

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketFlags, SocketType, acceptfrom_with, bind, connect, listen,
    socket_with,
};

/// `VMADDR_CID_HOST`: the host's one address.
const HOST_CID: u32 = 2;
/// `SO_VM_SOCKETS_CONNECT_TIMEOUT`, with a `struct timeval` of 64-bit fields
/// (linux/vm_sockets.h; on 64-bit machines the one of old has the same layout).
const CONNECT_TIMEOUT: libc::c_int = 6;

/// Where streams come from. A seam for tests: few machines can make guests.
pub(super) trait Sockets: Send + Sync + 'static {
    /// A socket that listens at a port of this host and never blocks.
    fn listen(&self, port: u32, backlog: i32) -> Result<OwnedFd, Errno>;

    /// Takes a waiting connection, with the context ID of its peer.
    fn accept(&self, listener: BorrowedFd<'_>) -> Result<(OwnedFd, u32), Errno>;

    /// Starts to connect to a guest. The socket becomes writable when it is decided, which it is
    /// after `timeout` at the latest.
    fn connect(&self, cid: u32, port: u32, timeout: Duration) -> Result<OwnedFd, Errno>;
}

/// The kernel's own.
#[derive(Debug)]
pub(super) struct AfVsock;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

impl Sockets for AfVsock {
    fn listen(&self, port: u32, backlog: i32) -> Result<OwnedFd, Errno> {
        let socket = stream_socket()?;
        bind(
            &socket,
            &Address {
                cid: HOST_CID,
                port,
            },
        )?;
        listen(&socket, backlog)?;
        Ok(socket)
    }

    fn accept(&self, listener: BorrowedFd<'_>) -> Result<(OwnedFd, u32), Errno> {
        let (socket, peer) = rustix::io::retry_on_intr(|| acceptfrom_with(listener, FLAGS))?;
        // A peer without an address is nobody's guest.
        let cid = peer.as_ref().and_then(Address::from_any);
        Ok((socket, cid.map_or(0, |address| address.cid)))
    }

    fn connect(&self, cid: u32, port: u32, timeout: Duration) -> Result<OwnedFd, Errno> {
        let socket = stream_socket()?;
        set_connect_timeout(socket.as_fd(), timeout)?;
        match connect(&socket, &Address { cid, port }) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(errno) => Err(errno),
        }
    }
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::VSOCK, SocketType::STREAM, FLAGS, None)
}

/// The kernel gives up after two seconds else.
fn set_connect_timeout(socket: BorrowedFd<'_>, timeout: Duration) -> Result<(), Errno> {
    // Zero would be two seconds.
    let timeout = timeout.max(Duration::from_millis(1));
    let value = libc::timeval {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: timeout.subsec_micros().into(),
    };
    let length = u32::try_from(size_of::<libc::timeval>()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel reads `length` bytes of `value` during the call and keeps no pointer; the
    // descriptor is open.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::AF_VSOCK,
            CONNECT_TIMEOUT,
            (&raw const value).cast(),
            length,
        )
    };
    if answer < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::INVAL));
    }
    Ok(())
}

/// An address of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address {
    cid: u32,
    port: u32,
}

impl Address {
    fn from_any(any: &SocketAddrAny) -> Option<Self> {
        let length = usize::try_from(any.addr_len()).ok()?;
        if any.address_family() != AddressFamily::VSOCK || length < size_of::<libc::sockaddr_vm>() {
            return None;
        }
        // SAFETY: the storage holds at least as many bytes that the kernel wrote, of a structure
        // whose fields may have any value; the read needs no alignment.
        let address = unsafe { any.as_ptr().cast::<libc::sockaddr_vm>().read_unaligned() };
        Some(Self {
            cid: address.svm_cid,
            port: address.svm_port,
        })
    }
}

// SAFETY: `with_sockaddr` hands on a whole `sockaddr_vm` that lives during the call, with its size.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let address = libc::sockaddr_vm {
            // A small positive number.
            svm_family: libc::sa_family_t::try_from(libc::AF_VSOCK).unwrap_or_default(),
            svm_reserved1: 0,
            svm_port: self.port,
            svm_cid: self.cid,
            svm_zero: [0; 4],
        };
        let length = SocketAddrLen::try_from(size_of::<libc::sockaddr_vm>()).unwrap_or_default();
        f((&raw const address).cast(), length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_comes_back_as_it_was(cid: u32, port: u32) {
            let address = Address { cid, port };
            prop_assert_eq!(Address::from_any(&address.as_any()), Some(address));
        }
    }

    #[test]
    fn addresses_of_other_families_are_nobodys() {
        let unix = rustix::net::SocketAddrUnix::new("/tmp/x").unwrap();
        assert_eq!(Address::from_any(&unix.as_any()), None);
    }
}
