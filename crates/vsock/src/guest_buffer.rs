//! The bytes of one descriptor chain, wherever the driver put them.
//!
//! Drivers may cut a packet into any descriptors (virtio 1.2, section 2.7.4), so nothing here
//! assumes that the header and the payload have one each. The slices were bounds-checked against
//! guest memory when they were gathered; system calls read and write them in place.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use virtio_queue::DescriptorChain;
use vm_memory::bitmap::{BitmapSlice, WithBitmapSlice};
use vm_memory::{GuestMemory, Permissions, VolatileSlice};

/// Most slices that one packet may have; also what one system call takes.
const MAX_SLICES: usize = 1024;

/// Which way the driver lends a chain to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The device reads it: a packet from the guest.
    Read,
    /// The device writes it: room for a packet to the guest.
    Write,
}

/// The bytes of one chain.
#[derive(Debug)]
pub(crate) struct GuestBuffer<'a, B> {
    slices: Vec<VolatileSlice<'a, B>>,
    len: usize,
}

impl<'a, B: BitmapSlice> GuestBuffer<'a, B> {
    /// Gathers `chain`; `None` where it is not wholly inside guest memory, has a descriptor of
    /// the wrong direction, or is cut into more pieces than anybody needs.
    pub(crate) fn gather<M>(
        memory: &'a M,
        chain: DescriptorChain<&'a M>,
        access: Access,
    ) -> Option<Self>
    where
        M: GuestMemory<Bitmap: WithBitmapSlice<'a, S = B>>,
    {
        let permissions = match access {
            Access::Read => Permissions::Read,
            Access::Write => Permissions::Write,
        };
        let mut slices = Vec::with_capacity(2);
        let mut len = 0usize;
        let mut descriptors = 0usize;
        for descriptor in chain {
            descriptors += 1;
            if descriptors > MAX_SLICES || descriptor.is_write_only() != (access == Access::Write) {
                return None;
            }
            let count = descriptor.len() as usize;
            for slice in memory
                .get_slices(descriptor.addr(), count, permissions)
                .ok()?
            {
                slices.push(slice.ok()?);
            }
            if slices.len() > MAX_SLICES {
                return None;
            }
            len = len.checked_add(count)?;
        }
        Some(Self { slices, len })
    }

    /// Bytes in all slices.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies bytes at `offset` out of guest memory; returns how many there were.
    pub(crate) fn read(&self, offset: usize, target: &mut [u8]) -> usize {
        let mut rest = target;
        let mut copied = 0;
        for slice in self.pieces(offset, rest.len()) {
            let count = slice.copy_to(rest);
            rest = std::mem::take(&mut rest)
                .get_mut(count..)
                .unwrap_or_default();
            copied += count;
        }
        copied
    }

    /// Copies `source` into guest memory at `offset`, as far as there is room.
    pub(crate) fn write(&self, offset: usize, source: &[u8]) {
        let mut rest = source;
        for slice in self.pieces(offset, source.len()) {
            slice.copy_from(rest);
            rest = rest.get(slice.len()..).unwrap_or_default();
        }
    }

    /// The parts of the slices that cover `count` bytes from `offset` on.
    fn pieces(
        &self,
        offset: usize,
        count: usize,
    ) -> impl Iterator<Item = VolatileSlice<'a, B>> + '_ {
        let mut skip = offset;
        let mut left = count;
        self.slices.iter().filter_map(move |slice| {
            let start = skip.min(slice.len());
            skip -= start;
            let take = left.min(slice.len() - start);
            left -= take;
            if take == 0 {
                return None;
            }
            slice.subslice(start, take).ok()
        })
    }
}

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
