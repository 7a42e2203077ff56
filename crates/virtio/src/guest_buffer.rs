//! The bytes of one descriptor chain, wherever the driver put them.
//!
//! Drivers may cut a packet into any descriptors (virtio 1.2, section 2.7.4), so nothing here
//! assumes that the header and the payload have one each. The slices were bounds-checked against
//! guest memory when they were gathered.

use virtio_queue::DescriptorChain;
use vm_memory::bitmap::{BitmapSlice, WithBitmapSlice};
use vm_memory::{GuestMemory, Permissions, VolatileSlice};

/// Most slices that one packet may have; also what one system call takes.
pub const MAX_SLICES: usize = 1024;

/// Which way the driver lends a chain to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The device reads it: a packet from the guest.
    Read,
    /// The device writes it: room for a packet to the guest.
    Write,
}

/// The bytes of one chain.
///
/// The guest may change them at any time: they are copied once, and what was copied is checked.
#[derive(Debug)]
pub struct GuestBuffer<'a, B> {
    slices: Vec<VolatileSlice<'a, B>>,
    len: usize,
}

impl<'a, B: BitmapSlice> GuestBuffer<'a, B> {
    /// Gathers `chain`; `None` where it is not wholly inside guest memory, has a descriptor of
    /// the wrong direction, or is cut into more than [`MAX_SLICES`] pieces.
    #[must_use]
    pub fn gather<M>(memory: &'a M, chain: DescriptorChain<&'a M>, access: Access) -> Option<Self>
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
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies bytes at `offset` out of guest memory; returns how many there were.
    pub fn read(&self, offset: usize, target: &mut [u8]) -> usize {
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
    pub fn write(&self, offset: usize, source: &[u8]) {
        let mut rest = source;
        for slice in self.pieces(offset, source.len()) {
            slice.copy_from(rest);
            rest = rest.get(slice.len()..).unwrap_or_default();
        }
    }

    /// The parts of the slices that cover `count` bytes from `offset` on.
    pub fn pieces(
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
