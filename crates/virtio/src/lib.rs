//! What a virtio device is to whoever hosts it.
//!
//! A device's queue code is written once and knows nothing of its host. Two hosts carry it:
//! a thread of the VMM (`microvm-vmm`, `virtio::hosted`), and a vhost-user back end
//! (`microvm-vsock`, `vhost_user`). Both own the queues' set-up, the kick descriptors and the
//! interrupts, and call the device through a [`Dispatcher`]; the device owns its host-side
//! resources and says by one descriptor when these want attention, so no host has to know what a
//! device waits for.
//!
//! A host counts what passes in a [`DeviceMeter`], and the time of its thread by a [`ThreadClock`].
//!
//! [`ring`] and [`GuestBuffer`] are the one checked way from a queue to the bytes of its chains.

mod device;
mod dispatch;
mod guest_buffer;
mod meter;
pub mod ring;
mod thread_clock;

pub use device::{Device, DeviceError, QueueSet};
pub use dispatch::{Dispatcher, Event};
pub use guest_buffer::{Access, GuestBuffer, MAX_SLICES};
pub use meter::{DeviceMeter, QueueMetrics};
pub use thread_clock::{CountedThread, ThreadClock};
