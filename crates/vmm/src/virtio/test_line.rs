//! An interrupt that keeps what it was told, for tests of hosts that others serve.

use std::sync::Mutex;

use vmm_sys_util::eventfd::EventFd;

use super::transport::Interrupt;

/// The one line of a device.
pub(super) struct Line {
    pub(super) descriptor: EventFd,
    /// Whether each failure was for good.
    pub(super) failures: Mutex<Vec<bool>>,
}

impl Interrupt for Line {
    fn signal_queue(&self, _index: usize) {}

    fn queue_descriptor(&self, _index: usize) -> &EventFd {
        &self.descriptor
    }

    fn signal_config(&self) {}

    fn fail(&self, for_good: bool) {
        self.failures.lock().unwrap().push(for_good);
    }
}
