//! The kick descriptors of a device's queues, as its host uses them: it also kicks itself, which
//! does not count for the driver's.

use std::sync::Arc;

use microvm_virtio::DeviceMeter;
use vmm_sys_util::eventfd::EventFd;

pub(super) struct Kicks {
    descriptors: Arc<[EventFd]>,
    /// For each: kicks of the host's own that are yet to be taken.
    own: Vec<u64>,
    meter: Arc<DeviceMeter>,
}

impl Kicks {
    pub(super) fn new(descriptors: Arc<[EventFd]>, meter: Arc<DeviceMeter>) -> Self {
        Self {
            own: vec![0; descriptors.len()],
            descriptors,
            meter,
        }
    }

    /// Has the queue at `index` looked at as if the driver had kicked it.
    pub(super) fn again(&mut self, index: usize) {
        if let (Some(kick), Some(own)) = (self.descriptors.get(index), self.own.get_mut(index)) {
            // It fails only where the counter is full, and then the kick is known already.
            *own += u64::from(kick.write(1).is_ok());
        }
    }

    /// Takes what came for the queue at `index`; false where an earlier look has taken it.
    pub(super) fn take(&mut self, index: usize) -> bool {
        let (Some(kick), Some(own)) = (self.descriptors.get(index), self.own.get_mut(index)) else {
            return false;
        };
        let Ok(times) = kick.read() else {
            return false;
        };
        let drivers = times.saturating_sub(std::mem::take(own));
        self.meter.kicked(index, drivers);
        true
    }
}
