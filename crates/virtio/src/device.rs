//! The contract between a virtio device and its host.

use std::os::fd::BorrowedFd;

use virtio_queue::Queue;
use vm_memory::GuestMemory;

use crate::DeviceMeter;

/// Why a device gave up on a queue. The host stops that device (and sets `DEVICE_NEEDS_RESET`
/// where the transport can say so); it never ends the process.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The driver broke the ring protocol.
    #[error("Driver broke the protocol of queue {queue}")]
    Queue {
        /// Index of the queue.
        queue: usize,
        /// What was wrong with the ring.
        #[source]
        source: virtio_queue::Error,
    },
    /// A descriptor chain does not have the shape that the device's section of the
    /// specification asks for.
    #[error("Driver gave a malformed buffer on queue {queue}: {reason}")]
    Buffer {
        /// Index of the queue.
        queue: usize,
        /// What was wrong.
        reason: &'static str,
    },
    /// A system call on the host's side failed for good.
    #[error("Host side of the device failed to {operation}")]
    Host {
        /// What the device tried to do.
        operation: &'static str,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

/// The queues of one activated device, as its host holds them.
pub trait QueueSet {
    /// How many queues there are.
    fn count(&self) -> usize;

    /// The queue at `index`, or `None` where there is none or the driver did not set it up.
    fn queue(&mut self, index: usize) -> Option<&mut Queue>;

    /// Interrupts the driver for `index`. Call it only after [`Queue`]'s `needs_notification`
    /// said so, which honours `EVENT_IDX` and `NO_INTERRUPT`.
    fn signal(&self, index: usize);

    /// Where bytes and buffers are counted; `None` where nobody asks for them.
    fn meter(&self) -> Option<&DeviceMeter> {
        None
    }

    /// Tells the driver that the configuration space changed, where the host has a way to.
    fn signal_config(&self) {}
}

/// One virtio device (virtio 1.2, section 2), without a transport.
///
/// Every call comes from one thread at a time, and comes through a [`crate::Dispatcher`] where it
/// concerns queues: a device pops chains and never enables or disables the driver's
/// notifications. None may block: waiting is the host's part, by [`Device::event_source`].
pub trait Device<M: GuestMemory>: Send {
    /// Device type (virtio 1.2, section 5), such as 4 for entropy and 19 for vsock.
    fn device_type(&self) -> u32;

    /// Largest size of each queue, in descriptors; a power of two up to 32768. Its length is the
    /// number of queues.
    fn queue_sizes(&self) -> &[u16];

    /// Feature bits that the device offers, ring features included. Hosts add
    /// `VIRTIO_F_VERSION_1` and what their transport needs.
    fn features(&self) -> u64;

    /// Fills `data` from the device's configuration space at `offset`; what lies beyond its end
    /// reads as zero.
    fn read_config(&self, offset: u32, data: &mut [u8]);

    /// Takes a write to the configuration space. Most devices have nothing to write.
    fn write_config(&mut self, _offset: u32, _data: &[u8]) {}

    /// Tells which of the offered features the driver took; comes before any queue event.
    fn set_acked_features(&mut self, _features: u64) {}

    /// A descriptor that turns readable when the device's host side wants [`Device::host_event`].
    /// A device that watches several descriptors hands out its own epoll descriptor. It stays the
    /// same for the device's life. Level-triggered.
    fn event_source(&self) -> Option<BorrowedFd<'_>>;

    /// The driver kicked the queue at `index`.
    ///
    /// One call handles at most as many chains as the queue is large, so that a driver that keeps
    /// adding some cannot hold the host's thread; the host calls again for what came meanwhile. A
    /// device may leave chains: it is called again when new ones come, or when it took some and
    /// left others. That is for the kicked queue alone: chains of another one that a call takes
    /// some of are left because there is nothing for them, and no call follows.
    ///
    /// # Errors
    ///
    /// Where the device cannot go on; see [`DeviceError`].
    fn queue_event(
        &mut self,
        index: usize,
        memory: &M,
        queues: &mut dyn QueueSet,
    ) -> Result<(), DeviceError>;

    /// [`Device::event_source`] is readable, or was until a moment ago. It may come while no driver
    /// is ready; then there are no queues. As in [`Device::queue_event`] for another queue, chains
    /// that are left, which were there at that queue's last call, are left for good reason.
    ///
    /// # Errors
    ///
    /// Where the device cannot go on; see [`DeviceError`].
    fn host_event(&mut self, memory: &M, queues: &mut dyn QueueSet) -> Result<(), DeviceError>;

    /// Returns to the state after creation: the driver reset the device, or the front end went.
    /// Connections are dropped, listeners kept.
    fn reset(&mut self);
}
