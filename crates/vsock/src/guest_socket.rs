//! Payloads between guest memory and sockets, without a copy in between: system calls read and write
//! the bounds-checked slices of a chain in place.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use microvm_virtio::{GuestBuffer, MAX_SLICES};
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// Receives at most `limit` bytes from a socket straight into `buffers`, past the first `skip`
/// bytes of each.
///
/// # Errors
///
/// What `recvmsg(2)` says; `WouldBlock` where there is nothing to read.
pub(crate) fn receive<B: BitmapSlice>(
    socket: BorrowedFd<'_>,
    buffers: &[GuestBuffer<'_, B>],
    skip: usize,
    limit: usize,
) -> io::Result<usize> {
    // The guards keep what the parts point to mapped until the call is over.
    let mut guards = Vec::with_capacity(buffers.len());
    guards.extend(
        payload_pieces(buffers, skip, limit)
            .take(MAX_SLICES)
            .map(|slice| slice.ptr_guard_mut()),
    );
    let mut parts: Vec<libc::iovec> = guards
        .iter()
        .map(|guard| libc::iovec {
            iov_base: guard.as_ptr().cast(),
            iov_len: guard.len(),
        })
        .collect();
    let mut message = message_of(&mut parts);
    // SAFETY: the message names `parts`, each of which is a writable range inside guest memory
    // that `guards` keeps mapped. The guest may write there meanwhile; only the kernel touches
    // the bytes, so no Rust reference sees them change.
    let received = retry(|| unsafe {
        libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT)
    })?;
    let mut dirty = received;
    for slice in payload_pieces(buffers, skip, received) {
        let count = slice.len().min(dirty);
        slice.bitmap().mark_dirty(0, count);
        dirty -= count;
    }
    Ok(received)
}

/// Sends `count` bytes of `buffer`, from `offset` on, straight to a socket.
///
/// # Errors
///
/// What `sendmsg(2)` says; `WouldBlock` where the socket takes nothing now.
pub(crate) fn send<B: BitmapSlice>(
    socket: BorrowedFd<'_>,
    buffer: &GuestBuffer<'_, B>,
    offset: usize,
    count: usize,
) -> io::Result<usize> {
    // The guards keep what the parts point to mapped until the call is over.
    let guards: Vec<_> = buffer
        .pieces(offset, count)
        .take(MAX_SLICES)
        .map(|slice| slice.ptr_guard())
        .collect();
    let mut parts: Vec<libc::iovec> = guards
        .iter()
        .map(|guard| libc::iovec {
            iov_base: guard.as_ptr().cast_mut().cast(),
            iov_len: guard.len(),
        })
        .collect();
    let message = message_of(&mut parts);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the message names `parts`, each of which is a readable range inside guest memory
    // that `guards` keeps mapped; `sendmsg` only reads them.
    retry(|| unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) })
}

/// The parts of all buffers, past the first `skip` bytes of each, that cover `count` bytes.
fn payload_pieces<'a, 'b, B: BitmapSlice>(
    buffers: &'b [GuestBuffer<'a, B>],
    skip: usize,
    count: usize,
) -> impl Iterator<Item = VolatileSlice<'a, B>> + use<'a, 'b, B> {
    let mut left = count;
    buffers.iter().flat_map(move |buffer| {
        let room = buffer.len().saturating_sub(skip).min(left);
        left -= room;
        buffer.pieces(skip, room)
    })
}

/// A message without address or control data.
fn message_of(parts: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all zeros is a valid `msghdr`: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    message
}

/// Runs a system call again as long as signals interrupt it.
fn retry(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(bytes) => return Ok(bytes),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
