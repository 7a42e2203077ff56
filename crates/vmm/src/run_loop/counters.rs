//! How often vCPUs left the guest, and why, and the time that they took.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use microvm_kvm::Exit;
use microvm_virtio::ThreadClock;

/// Exits of one vCPU or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExitMetrics {
    /// Reads of a port.
    pub io_in: u64,
    /// Writes to a port.
    pub io_out: u64,
    /// Reads of a device's memory.
    pub mmio_read: u64,
    /// Writes to a device's memory.
    pub mmio_write: u64,
    /// Times that a vCPU was made to leave.
    pub interrupted: u64,
    /// All others.
    pub other: u64,
}

impl ExitMetrics {
    /// All exits together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.io_in + self.io_out + self.mmio_read + self.mmio_write + self.interrupted + self.other
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            io_in: self.io_in + other.io_in,
            io_out: self.io_out + other.io_out,
            mmio_read: self.mmio_read + other.mmio_read,
            mmio_write: self.mmio_write + other.mmio_write,
            interrupted: self.interrupted + other.interrupted,
            other: self.other + other.other,
        }
    }
}

/// Counts the exits and the time of one vCPU; written by its thread only, read by all.
#[derive(Debug, Default)]
pub struct VcpuCounters {
    io_in: AtomicU64,
    io_out: AtomicU64,
    mmio_read: AtomicU64,
    mmio_write: AtomicU64,
    interrupted: AtomicU64,
    other: AtomicU64,
    thread: Arc<ThreadClock>,
}

impl VcpuCounters {
    /// The clock of the vCPU's thread: time in the guest, and in exits.
    #[must_use]
    pub fn thread(&self) -> &Arc<ThreadClock> {
        &self.thread
    }

    /// Counts one exit.
    pub fn count(&self, exit: &Exit<'_>) {
        let counter = match exit {
            Exit::IoIn { .. } => &self.io_in,
            Exit::IoOut { .. } => &self.io_out,
            Exit::MmioRead { .. } => &self.mmio_read,
            Exit::MmioWrite { .. } => &self.mmio_write,
            Exit::Interrupted => &self.interrupted,
            _ => &self.other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn metrics(&self) -> ExitMetrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ExitMetrics {
            io_in: get(&self.io_in),
            io_out: get(&self.io_out),
            mmio_read: get(&self.mmio_read),
            mmio_write: get(&self.mmio_write),
            interrupted: get(&self.interrupted),
            other: get(&self.other),
        }
    }
}
