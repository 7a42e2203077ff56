//! The virtio-vsock device (virtio 1.2, section 5.10) and its vhost-user host.
//!
//! [`VsockDevice`] is the queue code: it moves packets between the guest's rings and Unix sockets
//! of this machine, and knows neither transport nor thread. A VMM hosts it on a thread of its
//! own through [`microvm_virtio::Device`]; [`VhostUserHost`] offers the same device to any VMM
//! that speaks vhost-user. Guests of the kernel's own device are the other kind: [`VhostVsock`]
//! takes a context ID for one, and [`AfVsockGuest`] is the host's end of it.
//!
//! The host's end of [`VsockDevice`] follows the hybrid convention that several VMMs share. A program that wants
//! guest port P connects to the device's socket and writes `CONNECT P\n`; `OK <host port>\n`
//! tells that the guest accepted, an end of file that it did not. A guest that connects to
//! CID 2, port P reaches the program that listens at `<socket>_P`.

mod af_vsock;
mod connection;
mod credit;
mod deadlines;
mod device;
mod error;
mod guest_socket;
mod muxer;
mod packet;
mod unix_socket;
mod vhost_device;
mod vhost_user;

pub use af_vsock::{AfVsockAttempt, AfVsockError, AfVsockGuest, AfVsockListener};
pub use device::{VsockConfig, VsockDevice};
pub use error::VsockError;
pub use unix_socket::private_listener;
pub use vhost_device::{FIRST_GUEST_CID, LAST_GUEST_CID, VhostVsock, VhostVsockError};
pub use vhost_user::{HostEnd, VhostUserHost};
