//! virtio-rng (virtio 1.2, section 5.4): random bytes from the host's kernel.

use std::os::fd::BorrowedFd;

use microvm_virtio::{Device, DeviceError, QueueSet};
use rustix::io::retry_on_intr;
use rustix::rand::{GetRandomFlags, getrandom};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

const QUEUE: usize = 0;
const QUEUE_SIZES: [u16; 1] = [256];

/// Most bytes that one request gets, however large its buffers are: a guest is not to make the
/// host's kernel compute for it without end. Drivers ask again.
const MAX_REQUEST: usize = 64 << 10;

/// Bytes asked of the host's kernel at a time.
const BLOCK: usize = 4096;

/// An entropy device. It has no state but its queue.
#[derive(Debug, Default)]
pub struct Rng {
    _private: (),
}

impl Rng {
    /// An entropy device.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl<M: GuestMemory> Device<M> for Rng {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_RING_F_EVENT_IDX
    }

    fn read_config(&self, _offset: u32, data: &mut [u8]) {
        data.fill(0);
    }

    fn event_source(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn queue_event(
        &mut self,
        index: usize,
        memory: &M,
        queues: &mut dyn QueueSet,
    ) -> Result<(), DeviceError> {
        let failed = |source| DeviceError::Queue {
            queue: index,
            source,
        };
        let Some(queue) = queues.queue(index) else {
            return Ok(());
        };
        let mut answered = false;
        for _ in 0..queue.size() {
            let Some(chain) = queue.iter(memory).map_err(failed)?.next() else {
                break;
            };
            let head = chain.head_index();
            let written = answer(chain, queue.size(), memory)?;
            queue.add_used(memory, head, written).map_err(failed)?;
            answered = true;
        }
        if answered && queue.needs_notification(memory).map_err(failed)? {
            queues.signal(index);
        }
        Ok(())
    }

    fn host_event(&mut self, _memory: &M, _queues: &mut dyn QueueSet) -> Result<(), DeviceError> {
        Ok(())
    }

    fn reset(&mut self) {}
}

/// Fills the writable buffers of a chain, up to [`MAX_REQUEST`] bytes.
fn answer<M: GuestMemory>(
    chain: DescriptorChain<&M>,
    queue_size: u16,
    memory: &M,
) -> Result<u32, DeviceError> {
    let malformed = |reason| DeviceError::Buffer {
        queue: QUEUE,
        reason,
    };
    let mut budget = MAX_REQUEST;
    // A table that is not offered, indirect ones, may be longer than the queue.
    let mut descriptors = chain.take(usize::from(queue_size));
    while budget > 0 {
        let Some(descriptor) = descriptors.next() else {
            break;
        };
        if !descriptor.is_write_only() {
            return Err(malformed("an entropy request has a buffer to read"));
        }
        let wanted = usize::try_from(descriptor.len()).unwrap_or(MAX_REQUEST);
        let length = wanted.min(budget);
        fill(memory, descriptor.addr(), length)?;
        budget -= length;
    }
    // What is written is below 2^16 bytes.
    Ok(u32::try_from(MAX_REQUEST - budget).unwrap_or(0))
}

fn fill<M: GuestMemory>(memory: &M, start: GuestAddress, length: usize) -> Result<(), DeviceError> {
    let outside = || DeviceError::Buffer {
        queue: QUEUE,
        reason: "it is outside guest memory",
    };
    let mut block = [0; BLOCK];
    let mut done = 0;
    while done < length {
        let part = block
            .get_mut(..BLOCK.min(length - done))
            .unwrap_or_default();
        random(part)?;
        let address = u64::try_from(done)
            .ok()
            .and_then(|done| start.0.checked_add(done))
            .ok_or_else(outside)?;
        memory
            .write_slice(part, GuestAddress(address))
            .map_err(|_| outside())?;
        done += part.len();
    }
    Ok(())
}

fn random(bytes: &mut [u8]) -> Result<(), DeviceError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let count =
            retry_on_intr(|| getrandom(&mut *rest, GetRandomFlags::empty())).map_err(|errno| {
                DeviceError::Host {
                    operation: "get random bytes",
                    source: errno.into(),
                }
            })?;
        rest = rest.get_mut(count..).unwrap_or_default();
    }
    Ok(())
}
