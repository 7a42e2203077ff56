//! Whether the rings that a driver set up can be used at all: checked once, before any host sees
//! them.

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::error::VirtioError;
use super::state::QueueState;

/// Bytes of the three parts of a split queue (virtio 1.2, section 2.7), the event fields included.
pub(super) struct RingLengths {
    pub descriptor_table: usize,
    pub avail_ring: usize,
    pub used_ring: usize,
}

impl RingLengths {
    pub(super) fn of(size: u16) -> Self {
        let size = usize::from(size);
        Self {
            descriptor_table: 16 * size,
            avail_ring: 6 + 2 * size,
            used_ring: 6 + 8 * size,
        }
    }
}

/// Checks every queue that the driver declared ready.
///
/// # Errors
///
/// [`VirtioError::Ring`] names the first queue that cannot be used, and why.
pub(super) fn check(memory: &GuestMemoryMmap, queues: &[QueueState]) -> Result<(), VirtioError> {
    for (index, queue) in queues.iter().enumerate().filter(|(_, queue)| queue.ready) {
        let wrong = |reason| VirtioError::Ring {
            queue: index,
            reason,
        };
        if !queue.size.is_power_of_two() || queue.size > queue.max_size {
            return Err(wrong("its size is no power of two or above the maximum"));
        }
        if queue.descriptor_table % 16 != 0 || queue.avail_ring % 2 != 0 || queue.used_ring % 4 != 0
        {
            return Err(wrong("it is misaligned"));
        }
        if queue.avail_ring == 0 {
            return Err(wrong("its available ring has no address"));
        }
        let lengths = RingLengths::of(queue.size);
        let parts = [
            (queue.descriptor_table, lengths.descriptor_table),
            (queue.avail_ring, lengths.avail_ring),
            (queue.used_ring, lengths.used_ring),
        ];
        // A slice lies in one region: what straddles two could not be told to a back end.
        if parts
            .iter()
            .any(|&(address, length)| memory.get_slice(GuestAddress(address), length).is_err())
        {
            return Err(wrong("it is outside guest memory"));
        }
    }
    Ok(())
}
