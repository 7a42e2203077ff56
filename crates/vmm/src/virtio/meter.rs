//! What a plugged device counts; it outlives the device, for the machine's metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use microvm_virtio::DeviceMeter;

use crate::metrics::DeviceMetrics;

/// The counts of a device and of its transport.
#[derive(Debug, Clone)]
pub struct PluggedMeter {
    pub(super) device_type: u32,
    /// Interrupts that the driver acknowledged.
    pub(super) acknowledged: Arc<AtomicU64>,
    /// What the device's host counts.
    pub(super) host: Arc<DeviceMeter>,
}

impl PluggedMeter {
    /// The counts so far.
    #[must_use]
    pub fn metrics(&self) -> DeviceMetrics {
        let queues = self.host.queues();
        DeviceMetrics {
            device_type: self.device_type,
            acknowledged_interrupts: self.acknowledged.load(Ordering::Relaxed),
            // Where another process or the kernel runs them, nothing passes through this one.
            queues: (!queues.is_empty()).then_some(queues),
        }
    }

    /// Processor time of the device's thread in this process.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.host.time()
    }
}
