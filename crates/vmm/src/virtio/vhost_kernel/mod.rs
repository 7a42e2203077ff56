//! Devices whose queues the kernel runs: vhost-vsock, which connects the guest to the host's
//! `AF_VSOCK` sockets.
//!
//! The kernel gets the addresses of guest memory in this process, the queues' kick descriptors
//! (which KVM signals) and the interrupt line (which KVM listens to): packets pass without this
//! process. All that is left here is to set it up, and to take the rings back for a pause, a reset
//! or the end.
//!
//! A ring that its driver fills with nonsense harms the driver alone: the kernel checks every
//! access against guest memory, and leaves the ring at the first that is wrong. It would tell so by
//! a descriptor, which nobody waits on: nothing could be done about it but what the driver sees by
//! itself.

mod device;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{Bytes, GuestAddress};

use self::device::{KernelDevice, VhostVsock};
use super::error::VirtioError;
use super::plug::{DeviceEvent, DeviceEventKind};
use super::state::{QueueState, RingPosition};
use super::transport::{Activation, DeviceHost, HostContext};

/// Rings that the kernel runs: receive and transmit.
const KERNEL_RINGS: usize = 2;
/// And the event queue (virtio 1.2, section 5.10.2). Its one event tells a guest that it was moved
/// to another machine, which does not happen here: the driver's buffers stay where they are.
pub(super) const QUEUES: usize = KERNEL_RINGS + 1;
const QUEUE_SIZE: u16 = 256;

/// `VIRTIO_VSOCK_F_SEQPACKET` (virtio 1.2, section 5.10.3)
const SEQPACKET: u32 = 1;
/// What a driver may be offered of the kernel's features; the others are for legacy drivers, for
/// I/O memory management units and for migrations.
const OFFERED: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << SEQPACKET;

/// Takes an open `/dev/vhost-vsock` that has the guest's context ID already.
pub(super) fn vsock(
    device: OwnedFd,
    guest_cid: u64,
    context: HostContext,
) -> Result<Box<dyn DeviceHost>, VirtioError> {
    let device = VhostVsock::new(device, Arc::clone(&context.memory));
    Ok(Box::new(VhostKernelHost::new(device, guest_cid, context)?))
}

/// A device of the kernel, set up for one driver after another.
struct VhostKernelHost<D> {
    device: D,
    guest_cid: u64,
    features: u64,
    context: HostContext,
    memory_known: bool,
    /// What the driver set up, while it is set up.
    active: Option<Active>,
    /// The kernel works on the rings.
    running: bool,
    paused: bool,
    stopped: bool,
}

struct Active {
    features: u64,
    queues: Vec<QueueState>,
}

impl<D: KernelDevice> VhostKernelHost<D> {
    fn new(device: D, guest_cid: u64, context: HostContext) -> Result<Self, VirtioError> {
        device.take_owner()?;
        let features = device.features()? & OFFERED;
        if features & (1 << VIRTIO_F_VERSION_1) == 0 {
            return Err(VirtioError::LegacyKernelDevice);
        }
        Ok(Self {
            device,
            guest_cid,
            features,
            context,
            memory_known: false,
            active: None,
            running: false,
            paused: false,
            stopped: false,
        })
    }

    /// Hands the rings over, from where they are.
    fn start_rings(&mut self) -> Result<(), VirtioError> {
        let Some(active) = &self.active else {
            return Ok(());
        };
        if self.stopped {
            return Err(VirtioError::Stopped);
        }
        let rings = kernel_rings(&active.queues)?;
        self.device.set_features(active.features)?;
        if !self.memory_known {
            self.device.set_memory(&self.context.memory)?;
            self.memory_known = true;
        }
        for (index, queue) in rings.iter().enumerate() {
            let kick = self.context.kicks.get(index).ok_or(VirtioError::Stopped)?;
            let call = self.context.interrupt.queue_descriptor(index);
            self.device.set_ring(index, queue, kick, call)?;
        }
        self.device.set_running(true)?;
        self.running = true;
        for kick in self.context.kicks.iter().take(KERNEL_RINGS) {
            // For buffers from before. It fails only where the counter is full, which is a kick.
            let _ = kick.write(1);
        }
        Ok(())
    }

    /// Takes the rings back: the kernel does no more work on them when this returns well.
    fn stop_rings(&mut self) -> Result<(), VirtioError> {
        if !self.running {
            return Ok(());
        }
        self.device.set_running(false)?;
        self.running = false;
        Ok(())
    }

    /// Notes how far the kernel got in the rings that it gave back.
    fn note_positions(&mut self) -> Result<(), VirtioError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        for (index, queue) in active.queues.iter_mut().take(KERNEL_RINGS).enumerate() {
            let next_avail = self.device.ring_position(index)?;
            queue.position = RingPosition {
                // An index of 16 bits, in the low half also where the kernel has more to tell.
                next_avail: u16::try_from(next_avail & 0xffff).unwrap_or_default(),
                // The kernel's own account, which is in guest memory.
                next_used: self
                    .context
                    .memory
                    .load(
                        GuestAddress(queue.used_ring.saturating_add(2)),
                        Ordering::Acquire,
                    )
                    .map_or(0, u16::from_le),
            };
        }
        Ok(())
    }

    /// Tells the driver and the owner of a device that is in no state to go on from.
    fn give_up(&self, error: VirtioError) {
        self.context.interrupt.fail(true);
        (self.context.events)(DeviceEvent {
            device_type: VIRTIO_ID_VSOCK,
            kind: DeviceEventKind::Failed(error),
        });
    }
}

/// The rings that the kernel runs, both of which it takes to start.
fn kernel_rings(queues: &[QueueState]) -> Result<&[QueueState], VirtioError> {
    let missing = |queue| VirtioError::Ring {
        queue,
        reason: "it was not set up",
    };
    let rings = queues.get(..KERNEL_RINGS).ok_or(missing(queues.len()))?;
    match rings.iter().position(|queue| !queue.ready) {
        Some(index) => Err(missing(index)),
        None => Ok(rings),
    }
}

impl<D: KernelDevice> DeviceHost for VhostKernelHost<D> {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; QUEUES]
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        data.fill(0);
        let config = self.guest_cid.to_le_bytes();
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| config.get(offset..));
        for (target, source) in data.iter_mut().zip(rest.unwrap_or_default()) {
            *target = *source;
        }
    }

    fn write_config(&mut self, _: u32, _: &[u8]) {}

    fn activate(&mut self, activation: &Activation<'_>) -> Result<(), VirtioError> {
        self.active = Some(Active {
            features: activation.features,
            queues: activation.queues.to_vec(),
        });
        if self.paused {
            // Told now, for when it is resumed there is nobody left to tell.
            return kernel_rings(activation.queues).map(drop);
        }
        self.start_rings()
    }

    fn reset(&mut self) {
        if let Err(error) = self.stop_rings() {
            self.give_up(error);
        }
        self.active = None;
    }

    fn pause(&mut self) -> Result<Vec<RingPosition>, VirtioError> {
        if self.running {
            self.stop_rings()?;
            // Without its position a ring cannot go on, nor can the device.
            if let Err(error) = self.note_positions() {
                self.active = None;
                self.give_up(error);
            }
        }
        self.paused = true;
        Ok(match &self.active {
            Some(active) => active.queues.iter().map(|queue| queue.position).collect(),
            None => Vec::new(),
        })
    }

    fn resume(&mut self) -> Result<(), VirtioError> {
        if self.paused && !self.stopped {
            self.start_rings()?;
        }
        self.paused = false;
        Ok(())
    }

    fn stop(&mut self) {
        self.stopped = true;
        // Where this fails, the closing of the device ends its work: it is dropped before the
        // memory that it works on.
        let _ = self.stop_rings();
    }

    fn canceller(&self) -> Option<Box<dyn Fn() + Send + Sync>> {
        None
    }
}
