//! Interrupts of the virtio-mmio transport: one line for all that a device has to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::EventFd;

use super::transport::Interrupt;

/// The line, and the registers that a device's host changes while vCPUs use the others.
///
/// The interrupt is edge-triggered and not shared. A bit goes into the status before the line is
/// raised, and a driver looks at the rings after it acknowledged: so none is lost, though a driver
/// may find a bit cleared that an earlier interrupt already told it about.
#[derive(Debug)]
pub(super) struct MmioInterrupt {
    line: EventFd,
    status: AtomicU32,
    generation: AtomicU32,
    driver_ok: AtomicBool,
    needs_reset: AtomicBool,
    dead: AtomicBool,
    /// Used-buffer interrupts come from another process or the kernel straight to KVM, so the
    /// status has to claim one always: a driver that reads 0 would not look at its queues.
    unseen: bool,
    /// How often the driver acknowledged one: whoever raises them, this is seen here.
    acknowledged: Arc<AtomicU64>,
}

impl MmioInterrupt {
    pub(super) fn new(line: EventFd, unseen: bool) -> Self {
        Self {
            line,
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            driver_ok: AtomicBool::new(false),
            needs_reset: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            unseen,
            acknowledged: Arc::default(),
        }
    }

    pub(super) fn line(&self) -> &EventFd {
        &self.line
    }

    pub(super) fn status(&self) -> u32 {
        let always = if self.unseen {
            VIRTIO_MMIO_INT_VRING
        } else {
            0
        };
        self.status.load(Ordering::SeqCst) | always
    }

    /// Counts the driver's acknowledgements, also after this is gone.
    pub(super) fn acknowledged(&self) -> &Arc<AtomicU64> {
        &self.acknowledged
    }

    pub(super) fn acknowledge(&self, bits: u32) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.status.fetch_and(!bits, Ordering::SeqCst);
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    pub(super) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::SeqCst)
    }

    /// The device can serve no driver any more.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(super) fn driver_ok(&self) -> bool {
        self.driver_ok.load(Ordering::SeqCst)
    }

    /// The driver is ready for interrupts of all kinds. A failure from before is told now.
    pub(super) fn set_driver_ok(&self) {
        self.driver_ok.store(true, Ordering::SeqCst);
        if self.needs_reset() {
            self.raise(VIRTIO_MMIO_INT_CONFIG);
        }
    }

    /// The driver reset the device, whose host is quiet already.
    pub(super) fn reset(&self) {
        self.driver_ok.store(false, Ordering::SeqCst);
        self.needs_reset.store(false, Ordering::SeqCst);
        self.status.store(0, Ordering::SeqCst);
    }

    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::SeqCst);
        // It fails only where the counter is full, and then the line is raised already.
        let _ = self.line.write(1);
    }
}

impl Interrupt for MmioInterrupt {
    fn signal_queue(&self, _index: usize) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    fn queue_descriptor(&self, _index: usize) -> &EventFd {
        &self.line
    }

    fn signal_config(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        if self.driver_ok() {
            self.raise(VIRTIO_MMIO_INT_CONFIG);
        }
    }

    fn fail(&self, for_good: bool) {
        if for_good {
            self.dead.store(true, Ordering::SeqCst);
        }
        self.needs_reset.store(true, Ordering::SeqCst);
        if self.driver_ok() {
            self.raise(VIRTIO_MMIO_INT_CONFIG);
        }
    }
}
