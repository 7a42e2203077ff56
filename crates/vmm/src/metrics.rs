//! What a machine tells about its work: plain data.

use std::time::Duration;

use microvm_virtio::QueueMetrics;

use crate::devices::ConsoleMetrics;
use crate::run_loop::ExitMetrics;

/// Counts since the machine was made. They stay after its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineMetrics {
    /// Exits of all vCPUs.
    pub exits: ExitMetrics,
    /// The serial console.
    pub console: ConsoleMetrics,
    /// Devices that failed or lost their back end, in the order in which that happened; at most 64.
    pub device_failures: Vec<DeviceFailure>,
    /// Processor time of each vCPU's thread, in the guest and in what is emulated for it at once.
    pub vcpu_times: Vec<Duration>,
    /// Processor time of all other threads that the machine has in this process: its devices' and
    /// its console's.
    pub device_time: Duration,
    /// What this host holds for guest RAM, in bytes: pages that were used so far, in memory or
    /// swapped out. 0 once the machine was stopped.
    pub ram_bytes: u64,
    /// The virtio devices, in the order in which they were plugged: vsock, entropy, then those of
    /// other processes in their configuration's order.
    pub devices: Vec<DeviceMetrics>,
}

/// What a virtio device has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMetrics {
    /// Virtio device type (virtio 1.2, section 5).
    pub device_type: u32,
    /// How often the driver acknowledged an interrupt. One may stand for several used buffers, of
    /// several queues.
    pub acknowledged_interrupts: u64,
    /// The queues; `None` where another process or the kernel runs them.
    pub queues: Option<Vec<QueueMetrics>>,
}

/// A device that does not work any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFailure {
    /// Virtio device type.
    pub device_type: u32,
    /// What happened, with its causes.
    pub message: String,
}
