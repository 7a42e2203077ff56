//! virtio-rng (virtio 1.2, section 5.4): random bytes from the host's kernel.

use std::os::fd::BorrowedFd;

use microvm_virtio::{Access, Device, DeviceError, GuestBuffer, QueueSet, ring};
use rustix::io::retry_on_intr;
use rustix::rand::{GetRandomFlags, getrandom};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::QueueT;
use vm_memory::GuestMemory;
use vm_memory::bitmap::BitmapSlice;

const QUEUE: usize = 0;
const QUEUE_SIZES: [u16; 1] = [256];

/// Most bytes that one request gets, however large its buffers are: a guest is not to make the
/// host's kernel compute for it without end. Drivers ask again.
const MAX_REQUEST: usize = 64 << 10;

/// Bytes asked of the host's kernel at a time.
const BLOCK: usize = 4096;

const MALFORMED: DeviceError = DeviceError::Buffer {
    queue: QUEUE,
    reason: "an entropy request is not wholly a buffer to write in guest memory",
};

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
        let failed = || ring::broken(index);
        let Some(queue) = queues.queue(index) else {
            return Ok(());
        };
        let mut answered = false;
        let mut bytes = 0;
        for _ in 0..queue.size() {
            let Some(chain) = ring::pop(memory, queue).map_err(failed())? else {
                break;
            };
            let head = chain.head_index();
            let room = GuestBuffer::gather(memory, chain, Access::Write).ok_or(MALFORMED)?;
            let written = fill(&room)?;
            queue.add_used(memory, head, written).map_err(failed())?;
            answered = true;
            bytes += u64::from(written);
        }
        if let Some(meter) = queues.meter() {
            meter.passed(index, bytes);
        }
        if answered {
            ring::notify(index, memory, queues).map_err(failed())?;
        }
        Ok(())
    }

    fn host_event(&mut self, _memory: &M, _queues: &mut dyn QueueSet) -> Result<(), DeviceError> {
        Ok(())
    }

    fn reset(&mut self) {}
}

/// Fills the buffer, up to [`MAX_REQUEST`] bytes; tells how many these were.
fn fill<B: BitmapSlice>(room: &GuestBuffer<'_, B>) -> Result<u32, DeviceError> {
    let wanted = room.len().min(MAX_REQUEST);
    let mut block = [0; BLOCK];
    let mut done = 0;
    while done < wanted {
        let part = block
            .get_mut(..BLOCK.min(wanted - done))
            .unwrap_or_default();
        random(part)?;
        room.write(done, part);
        done += part.len();
    }
    // It is at most MAX_REQUEST.
    Ok(u32::try_from(done).unwrap_or(0))
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
