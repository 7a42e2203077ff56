//! Taking chains from a queue, with the checks that every queue needs.

use std::sync::atomic::Ordering;

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use crate::{DeviceError, QueueSet};

/// Names the queue that an error is about.
pub fn broken(queue: usize) -> impl FnOnce(Error) -> DeviceError {
    move |source| DeviceError::Queue { queue, source }
}

/// Takes the next chain, or `None` where the driver made none available.
///
/// # Errors
///
/// Where the available ring claims more chains than the queue holds, or lies outside memory.
pub fn pop<'a, M: GuestMemory>(
    memory: &'a M,
    queue: &mut Queue,
) -> Result<Option<DescriptorChain<&'a M>>, Error> {
    if queue.avail_idx(memory, Ordering::Acquire)?.0 == queue.next_avail() {
        return Ok(None);
    }
    // An entry that cannot be read would come back for ever: the ring itself is broken.
    match queue.iter(memory)?.next() {
        Some(chain) => Ok(Some(chain)),
        None => Err(Error::InvalidAvailRingIndex),
    }
}

/// Hands the last `count` chains that were taken, and not used, back.
pub fn push_back(queue: &mut Queue, count: usize) {
    for _ in 0..count {
        queue.go_to_previous_position();
    }
}

/// Interrupts the driver where it wants to hear of the chains used since the last call.
///
/// # Errors
///
/// Where the available ring lies outside memory.
pub fn notify<M: GuestMemory>(
    index: usize,
    memory: &M,
    queues: &mut dyn QueueSet,
) -> Result<(), Error> {
    let Some(queue) = queues.queue(index) else {
        return Ok(());
    };
    let wanted = if queue.event_idx_enabled() {
        queue.needs_notification(memory)?
    } else {
        // The queue's own check knows `EVENT_IDX` only. Its fence is wanted all the same: the
        // used ring must be visible before the flag is read.
        queue.needs_notification(memory)?;
        let flags: u16 = memory
            .load(GuestAddress(queue.avail_ring()), Ordering::Relaxed)
            .map_err(Error::GuestMemory)?;
        u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0
    };
    if wanted {
        queues.signal(index);
    }
    Ok(())
}
