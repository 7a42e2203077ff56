//! What machines and their devices count, as JavaScript's numbers.

use std::time::Duration;

use microvm_vmm::{DeviceMetrics, MachineMetrics, QueueMetrics};
use napi_derive::napi;

use crate::field::count;

/// What a machine did and took.
#[derive(Debug)]
#[napi(object)]
pub struct BindingMachineMetrics {
    /// Processor time of each vCPU, in milliseconds.
    pub vcpus_ms: Vec<f64>,
    /// Processor time of all other threads of the machine, in milliseconds.
    pub devices_ms: f64,
    /// What this host holds for guest RAM, in bytes.
    pub ram_bytes: f64,
    /// The virtio devices in the order in which they were plugged.
    pub devices: Vec<BindingDeviceMetrics>,
}

/// What a virtio device did.
#[derive(Debug)]
#[napi(object)]
pub struct BindingDeviceMetrics {
    /// Virtio device type.
    pub device_type: u32,
    /// Interrupts that the driver acknowledged.
    pub acknowledged_interrupts: f64,
    /// Its queues, unless another process or the kernel runs them.
    pub queues: Option<Vec<BindingQueueMetrics>>,
}

/// What a virtio queue did.
#[derive(Debug)]
#[napi(object)]
pub struct BindingQueueMetrics {
    /// Notifications of the driver's.
    pub kicks: f64,
    /// Interrupts raised for used buffers.
    pub interrupts: f64,
    /// Buffers given back to the driver.
    pub buffers: f64,
    /// Bytes in them.
    pub bytes: f64,
}

pub(crate) fn machine_metrics(metrics: MachineMetrics) -> BindingMachineMetrics {
    BindingMachineMetrics {
        vcpus_ms: metrics.vcpu_times.into_iter().map(milliseconds).collect(),
        devices_ms: milliseconds(metrics.device_time),
        ram_bytes: count(metrics.ram_bytes),
        devices: metrics.devices.into_iter().map(device_metrics).collect(),
    }
}

fn device_metrics(metrics: DeviceMetrics) -> BindingDeviceMetrics {
    BindingDeviceMetrics {
        device_type: metrics.device_type,
        acknowledged_interrupts: count(metrics.acknowledged_interrupts),
        queues: metrics.queues.map(queue_metrics),
    }
}

pub(crate) fn queue_metrics(queues: Vec<QueueMetrics>) -> Vec<BindingQueueMetrics> {
    let queue = |queue: QueueMetrics| BindingQueueMetrics {
        kicks: count(queue.kicks),
        interrupts: count(queue.interrupts),
        buffers: count(queue.buffers),
        bytes: count(queue.bytes),
    };
    queues.into_iter().map(queue).collect()
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
