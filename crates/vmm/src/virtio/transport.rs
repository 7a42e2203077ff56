//! The two seams of the virtio part. A transport (virtio-mmio now, virtio-pci later) turns what
//! the driver writes into calls of a [`DeviceHost`]; a host (a thread of ours, a vhost-user back
//! end, the kernel) reaches the driver through an [`Interrupt`]. Neither knows what the other is.

use std::sync::Arc;

use microvm_virtio::DeviceMeter;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::error::VirtioError;
use super::plug::DeviceEvents;
use super::state::{QueueState, RingPosition, TransportState};
use crate::bus::BusDevice;

/// A device behind its transport, as the machine holds it.
pub trait Transport: BusDevice {
    /// Stops all work on the queues; returns once none is done any more. vCPUs should be paused
    /// before. Idempotent.
    ///
    /// # Errors
    ///
    /// Where a back end does not give its rings back.
    fn pause(&self) -> Result<(), VirtioError>;

    /// Takes work up again after [`Transport::pause`]. Idempotent.
    ///
    /// # Errors
    ///
    /// Where a back end does not take its rings back.
    fn resume(&self) -> Result<(), VirtioError>;

    /// Ends the device: its threads are joined, a back end is disconnected. Idempotent, and
    /// bounded in time whatever a back end does.
    fn stop(&self);

    /// The device as its driver sees it. Ring positions are those of the last
    /// [`Transport::pause`].
    fn state(&self) -> TransportState;
}

/// How a host reaches the driver. Implementations neither block nor take locks of the transport:
/// hosts call them while the transport waits for the host.
pub trait Interrupt: Send + Sync {
    /// Used buffers are in the queue at `index`.
    fn signal_queue(&self, index: usize);

    /// The descriptor that interrupts the driver for the queue at `index`, for back ends of other
    /// processes.
    fn queue_descriptor(&self, index: usize) -> &EventFd;

    /// The configuration space changed.
    fn signal_config(&self);

    /// The device stops: `DEVICE_NEEDS_RESET`. With `for_good` no reset brings it back, and the
    /// next driver is refused.
    fn fail(&self, for_good: bool);
}

/// What a transport hands over when the driver is done.
pub(crate) struct Activation<'a> {
    /// Features that the driver took.
    pub features: u64,
    /// The queues; those not ready are not used. Their rings lie in guest memory.
    pub queues: &'a [QueueState],
}

/// What a host needs of its transport, from its creation on.
#[derive(Clone)]
pub(crate) struct HostContext {
    /// The guest's memory.
    pub memory: Arc<GuestMemoryMmap>,
    /// One descriptor a queue, which the driver's kicks signal.
    pub kicks: Arc<[EventFd]>,
    /// The way to the driver.
    pub interrupt: Arc<dyn Interrupt>,
    /// Where the host counts what passes it: no queues where others run them.
    pub meter: Arc<DeviceMeter>,
    /// The way to the machine's owner.
    pub events: DeviceEvents,
}

/// Whoever runs a device's queues. A transport calls it from vCPU threads, one at a time.
pub(crate) trait DeviceHost: Send {
    /// Device type (virtio 1.2, section 5).
    fn device_type(&self) -> u32;

    /// Features that the device has.
    fn features(&self) -> u64;

    /// Largest size of each queue.
    fn queue_sizes(&self) -> Vec<u16>;

    fn read_config(&self, offset: u32, data: &mut [u8]);

    fn write_config(&mut self, offset: u32, data: &[u8]);

    /// Starts work on the queues that are ready.
    fn activate(&mut self, activation: &Activation<'_>) -> Result<(), VirtioError>;

    /// Ends all work on the queues before it returns; the device is as after creation.
    fn reset(&mut self);

    /// Ends all work on the queues and tells how far it got, one entry a queue.
    fn pause(&mut self) -> Result<Vec<RingPosition>, VirtioError>;

    fn resume(&mut self) -> Result<(), VirtioError>;

    /// Ends the host's threads and connections.
    fn stop(&mut self);

    /// Something that makes a call which waits for another process return, or `None` where no
    /// call does.
    fn canceller(&self) -> Option<Box<dyn Fn() + Send + Sync>>;
}
