//! Why a device could not be plugged, or does not go on.

use std::io;
use std::path::PathBuf;

use microvm_virtio::DeviceError;

/// What went wrong with a virtio device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VirtioError {
    /// A descriptor that the device's host needs.
    #[error("Failed to make {what} of a virtio device")]
    Descriptor {
        /// What it is for.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// KVM refused a connection between a descriptor and the guest.
    #[error("Failed to register {what} of the virtio device at {base:#x} with KVM")]
    Kvm {
        /// What was to be registered: an ioeventfd or an irqfd.
        what: &'static str,
        /// Guest physical address of the device.
        base: u64,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The number or the sizes of the queues.
    #[error("Device type {device_type} cannot have {queues} queues of {size} descriptors")]
    QueueLayout {
        /// Device type.
        device_type: u32,
        /// Number of queues.
        queues: usize,
        /// Size of the first queue that is wrong.
        size: u16,
    },
    /// The device's thread.
    #[error("Failed to start the thread {name}")]
    Thread {
        /// Name of the thread.
        name: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The driver's rings: misaligned, outside guest memory or of an impossible size.
    #[error("Driver gave queue {queue} a ring that cannot be used: {reason}")]
    Ring {
        /// Index of the queue.
        queue: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The device itself.
    #[error("Device gave up")]
    Device(#[from] DeviceError),
    /// The device's code panicked. The device is stopped, as for an error.
    #[error("Device panicked")]
    Panic,
    /// The connection to the back end could not be made.
    #[error("Failed to connect to the vhost-user socket {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A descriptor that is not a connected Unix stream socket.
    #[error("Descriptor {descriptor} is no connected Unix stream socket")]
    NotAPeer {
        /// Its number.
        descriptor: i32,
        /// The system's answer, where there is one.
        #[source]
        source: Option<io::Error>,
    },
    /// The back end answered, and declined.
    #[error("vhost-user back end declined to {operation}")]
    Declined {
        /// What was asked of it.
        operation: &'static str,
    },
    /// The back end is gone, or was dropped because it cannot be trusted to go on.
    #[error("vhost-user back end is lost: {0}")]
    PeerLost(PeerLoss),
    /// The back end lacks what the configuration asks for.
    #[error("vhost-user back end has {available} of {wanted} queues")]
    TooFewQueues {
        /// Queues that the configuration names.
        wanted: u16,
        /// Queues that the back end has.
        available: u64,
    },
    /// The back end's device is not of virtio 1.0 or later.
    #[error("vhost-user back end does not offer VIRTIO_F_VERSION_1")]
    LegacyPeer,
    /// The kernel refused to run a device's queues.
    #[error("vhost device of the kernel refused to {operation}")]
    KernelDevice {
        /// What was asked of it.
        operation: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel's device is not of virtio 1.0 or later.
    #[error("vhost device of the kernel does not offer VIRTIO_F_VERSION_1")]
    LegacyKernelDevice,
    /// Guest memory that another process cannot see.
    #[error(
        "Guest memory at {address:#x} is not shared by a file, which a vhost-user device needs"
    )]
    PrivateMemory {
        /// Guest physical address of the region.
        address: u64,
    },
    /// The device was stopped.
    #[error("Device is stopped")]
    Stopped,
}

/// Why a vhost-user back end counts as lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerLoss {
    /// It closed the connection, or its process ended.
    #[error("it closed the connection")]
    Closed,
    /// It left a request without an answer for too long.
    #[error("it did not answer in time when asked to {operation}")]
    TimedOut {
        /// What was asked of it.
        operation: &'static str,
    },
    /// It answered what the protocol does not allow.
    #[error("it broke the protocol when asked to {operation}: {reason}")]
    Protocol {
        /// What was asked of it.
        operation: &'static str,
        /// What was wrong.
        reason: String,
    },
    /// It reported an error of one of its rings.
    #[error("it reported an error of a ring")]
    Ring,
    /// Its watching thread failed.
    #[error("it could not be watched: {reason}")]
    Unwatched {
        /// The system's answer.
        reason: String,
    },
}
