//! How a device comes onto the guest's bus, and what its owner hears of it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use microvm_kvm::VirtualMachine;
use microvm_virtio::Device;
use vm_memory::GuestMemoryMmap;

use super::error::{PeerLoss, VirtioError};
use super::meter::PluggedMeter;
use super::mmio::MmioTransport;
use super::state::TransportState;
use super::transport::Transport;
use crate::bus::BusDevice;

/// Where a virtio-mmio device sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmioSlot {
    /// Guest physical address of the registers; they take [`MmioSlot::SIZE`] bytes.
    pub base: u64,
    /// The interrupt's number for KVM. It is edge-triggered and not shared.
    pub gsi: u32,
}

impl MmioSlot {
    /// Bytes of address space that a device answers for: 0x100 of registers, the rest its
    /// configuration space.
    pub const SIZE: u64 = 0x200;
}

/// What runs behind a transport.
pub enum VirtioDeviceSource {
    /// Device code of ours, on a thread of this process.
    Hosted(Box<dyn Device<GuestMemoryMmap>>),
    /// Another process that speaks vhost-user.
    VhostUser(VhostUserDevice),
    /// The kernel's vhost-vsock device.
    VhostVsock(VhostVsockDevice),
}

impl fmt::Debug for VirtioDeviceSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hosted(device) => write!(formatter, "Hosted(type {})", device.device_type()),
            Self::VhostUser(device) => device.fmt(formatter),
            Self::VhostVsock(device) => device.fmt(formatter),
        }
    }
}

/// A device whose queues a vhost-user back end runs.
#[derive(Debug)]
pub struct VhostUserDevice {
    /// The back end.
    pub peer: VhostUserPeer,
    /// Device type (virtio 1.2, section 5), such as 26 for a file system.
    pub device_type: u32,
    /// How many queues the driver may use.
    pub queues: u16,
    /// Largest size of each, in descriptors; a power of two.
    pub queue_size: u16,
    /// The configuration space. `None`: the back end's own, or an empty one where it has none.
    pub config: Option<Vec<u8>>,
}

/// A vsock device whose queues the kernel runs.
#[derive(Debug)]
pub struct VhostVsockDevice {
    /// An open `/dev/vhost-vsock` that nobody owns yet, and that was given `guest_cid`.
    pub device: OwnedFd,
    /// Context ID of the guest.
    pub guest_cid: u64,
}

/// The way to a vhost-user back end.
#[derive(Debug)]
pub enum VhostUserPeer {
    /// A Unix socket where the back end listens already.
    Socket(PathBuf),
    /// A connected Unix stream socket.
    Fd(OwnedFd),
}

/// Something that a machine's owner should know about a device.
#[derive(Debug)]
pub struct DeviceEvent {
    /// Device type (virtio 1.2, section 5).
    pub device_type: u32,
    /// What happened.
    pub kind: DeviceEventKind,
}

/// What happened to a device.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeviceEventKind {
    /// The vhost-user back end is gone. The driver was told (`DEVICE_NEEDS_RESET`); the device
    /// does not come back.
    PeerLost(PeerLoss),
    /// The device stopped, mostly since its driver broke the rules. The driver was told, and may
    /// reset it.
    Failed(VirtioError),
}

/// Where events go. It is called from device and vCPU threads: it must neither block nor call
/// back into the device (sending on a channel is right).
pub type DeviceEvents = Arc<dyn Fn(DeviceEvent) + Send + Sync>;

/// A device on the guest's bus. Dropping it stops the device.
#[derive(Debug)]
pub struct PluggedDevice {
    slot: MmioSlot,
    transport: Arc<MmioTransport>,
}

impl PluggedDevice {
    /// Where it sits; ACPI's DSDT tells the guest.
    #[must_use]
    pub fn slot(&self) -> MmioSlot {
        self.slot
    }

    /// What answers on the bus at [`MmioSlot::base`].
    #[must_use]
    pub fn bus_device(&self) -> Arc<dyn BusDevice> {
        Arc::clone(&self.transport) as Arc<dyn BusDevice>
    }

    /// Device type (virtio 1.2, section 5).
    #[must_use]
    pub fn device_type(&self) -> u32 {
        self.transport.device_type()
    }

    /// What it counts; may be kept longer than the device.
    #[must_use]
    pub fn meter(&self) -> &PluggedMeter {
        self.transport.meter()
    }

    /// Stops all work on the queues, once the vCPUs are paused. Idempotent.
    ///
    /// # Errors
    ///
    /// Where a back end does not give its rings back.
    pub fn pause(&self) -> Result<(), VirtioError> {
        self.transport.pause()
    }

    /// Takes work up again. Idempotent.
    ///
    /// # Errors
    ///
    /// Where a back end does not take its rings back.
    pub fn resume(&self) -> Result<(), VirtioError> {
        self.transport.resume()
    }

    /// Ends the device: joins its threads, disconnects its back end. Idempotent.
    pub fn stop(&self) {
        self.transport.stop();
    }

    /// The device as its driver sees it; plain data.
    #[must_use]
    pub fn state(&self) -> TransportState {
        self.transport.state()
    }
}

impl Drop for PluggedDevice {
    fn drop(&mut self) {
        // The bus may hold the transport a little longer; the device's threads must not.
        self.stop();
    }
}

/// Puts a device on the guest's bus at `slot`. It comes after the creation of the irqchip and of
/// all vCPUs. A vhost-user back end is connected before this returns.
///
/// # Errors
///
/// Where the device cannot be hosted, its back end does not come up to the configuration, or KVM
/// refuses the ioeventfds or the irqfd.
pub fn plug(
    vm: &VirtualMachine,
    memory: Arc<GuestMemoryMmap>,
    slot: MmioSlot,
    device: VirtioDeviceSource,
    events: DeviceEvents,
) -> Result<PluggedDevice, VirtioError> {
    let transport = Arc::new(MmioTransport::new(memory, device, events)?);
    transport.register(vm, slot)?;
    Ok(PluggedDevice { slot, transport })
}
