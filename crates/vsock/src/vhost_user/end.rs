//! How a host ends, and who waits for it.

use std::sync::{Condvar, Mutex, PoisonError};

use super::lock;

/// How a host came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEnd {
    /// [`crate::VhostUserHost::stop`] was called.
    Stopped,
    /// The front end closed its connection.
    FrontEndGone,
    /// The front end broke the protocol, the guest's driver that of its queues, or a system call
    /// failed for good. The text says which.
    Failed(String),
}

/// Where the reason of a host's end is kept.
#[derive(Debug, Default)]
pub(super) struct End {
    value: Mutex<Option<HostEnd>>,
    changed: Condvar,
}

impl End {
    pub(super) fn set(&self, end: HostEnd) {
        lock(&self.value).get_or_insert(end);
        self.changed.notify_all();
    }

    pub(super) fn wait(&self) -> HostEnd {
        let mut value = lock(&self.value);
        loop {
            if let Some(end) = value.as_ref() {
                return end.clone();
            }
            value = self
                .changed
                .wait(value)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
