//! What a device's host counts: plain numbers, written by the device's thread and read by any.
//!
//! Each is one relaxed addition beside a system call or a copy, so they are always counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::ThreadClock;

/// Counts of one device. They stay over the driver's resets.
#[derive(Debug)]
pub struct DeviceMeter {
    thread: Arc<ThreadClock>,
    queues: Box<[QueueMeter]>,
}

#[derive(Debug, Default)]
struct QueueMeter {
    kicks: AtomicU64,
    interrupts: AtomicU64,
    buffers: AtomicU64,
    bytes: AtomicU64,
}

/// What one queue has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueMetrics {
    /// Notifications of the driver's, as they reached the device's host.
    pub kicks: u64,
    /// Interrupts raised for used buffers.
    pub interrupts: u64,
    /// Buffers (descriptor chains) that were given back to the driver.
    pub buffers: u64,
    /// Bytes read from them or written to them, with the headers of the device's protocol.
    pub bytes: u64,
}

impl DeviceMeter {
    /// Zeros, for `queues` queues.
    #[must_use]
    pub fn new(queues: usize) -> Self {
        Self {
            thread: Arc::default(),
            queues: (0..queues).map(|_| QueueMeter::default()).collect(),
        }
    }

    /// The clock of the thread that runs the queues.
    #[must_use]
    pub fn thread(&self) -> &Arc<ThreadClock> {
        &self.thread
    }

    /// The driver kicked the queue at `index`, so many times since the last call.
    pub fn kicked(&self, index: usize, times: u64) {
        self.add(index, |queue| &queue.kicks, times);
    }

    /// The driver was interrupted for the queue at `index`.
    pub fn interrupted(&self, index: usize) {
        self.add(index, |queue| &queue.interrupts, 1);
    }

    /// Buffers of the queue at `index` were given back.
    pub fn used(&self, index: usize, buffers: u64) {
        self.add(index, |queue| &queue.buffers, buffers);
    }

    /// Bytes passed through buffers of the queue at `index`.
    pub fn passed(&self, index: usize, bytes: u64) {
        self.add(index, |queue| &queue.bytes, bytes);
    }

    /// Processor time of the thread that runs the queues.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.thread.time()
    }

    /// The counts of all queues so far.
    #[must_use]
    pub fn queues(&self) -> Vec<QueueMetrics> {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let metrics = |queue: &QueueMeter| QueueMetrics {
            kicks: get(&queue.kicks),
            interrupts: get(&queue.interrupts),
            buffers: get(&queue.buffers),
            bytes: get(&queue.bytes),
        };
        self.queues.iter().map(metrics).collect()
    }

    fn add(&self, index: usize, counter: impl Fn(&QueueMeter) -> &AtomicU64, count: u64) {
        if count != 0
            && let Some(queue) = self.queues.get(index)
        {
            counter(queue).fetch_add(count, Ordering::Relaxed);
        }
    }
}
