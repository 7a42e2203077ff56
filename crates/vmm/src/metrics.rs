//! What a machine tells about its work: plain data.

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
}

/// A device that does not work any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFailure {
    /// Virtio device type.
    pub device_type: u32,
    /// What happened, with its causes.
    pub message: String,
}
