//! virtio: devices that the guest's own drivers know.
//!
//! [`plug`] puts a device on the guest's bus. A [`MmioTransport`] answers for its registers and
//! enforces the specification's order against the guest; behind it a host runs the queues: a
//! thread of ours for a [`microvm_virtio::Device`] (`hosted`), another process that speaks
//! vhost-user (`vhost_user`), or the kernel (`vhost_kernel`). Kicks and interrupts pass by eventfds
//! which KVM serves itself, so no queue work ever runs on a vCPU thread.

mod error;
mod hosted;
mod interrupt;
mod meter;
mod mmio;
mod plug;
mod rings;
mod state;
#[cfg(test)]
mod test_line;
mod transport;
mod vhost_kernel;
mod vhost_user;

pub use error::{PeerLoss, VirtioError};
pub use meter::PluggedMeter;
pub use mmio::MmioTransport;
pub use plug::{
    DeviceEvent, DeviceEventKind, DeviceEvents, MmioSlot, PluggedDevice, VhostUserDevice,
    VhostUserPeer, VhostVsockDevice, VirtioDeviceSource, plug,
};
pub use state::{QueueState, RingPosition, TransportState};
pub use transport::{Interrupt, Transport};
