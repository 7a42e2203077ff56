//! When a device's handlers run, and how its queues ask for the next kick.

use std::num::Wrapping;
use std::sync::atomic::Ordering;

use virtio_queue::{Error as QueueError, QueueT};
use vm_memory::GuestMemory;

use crate::{Device, DeviceError, QueueSet};

/// How often in a row one queue's handler runs for new buffers before the host looks at its other
/// events. It bounds what a driver that keeps adding buffers can take of the host's thread.
const MAX_ROUNDS: usize = 8;

/// What a device's host woke up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The driver kicked the queue of this index.
    Kick(usize),
    /// [`Device::event_source`] is readable.
    Host,
}

/// Calls a device's handlers so that no kick is lost, with or without `EVENT_IDX`.
///
/// A driver kicks only where the ring asks for it. Whoever ran a handler has to ask again, and
/// then to look whether buffers came in between; for that look it matters whether the queue's own
/// handler has had its chance to see them, since it may leave buffers on purpose (a vsock device
/// keeps receive buffers until there is something to receive). Every event asks for the kicks of
/// all queues again, also of those whose handler it did not run: a buffer that is there by then is
/// one that nobody will kick for. Both hosts need exactly this, so it is here once and devices
/// never touch notifications.
#[derive(Debug, Default)]
pub struct Dispatcher {
    queues: Vec<Watch>,
}

/// What one queue looked like before the handlers ran.
#[derive(Debug, Default, Clone, Copy)]
struct Watch {
    /// Up to where the queue's own handler has seen buffers.
    seen: Option<u16>,
    next: u16,
    used: u16,
    again: bool,
}

impl Dispatcher {
    /// A dispatcher for a device with `count` queues.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            queues: vec![Watch::default(); count],
        }
    }

    /// Handles one event, and what the driver adds to the queues meanwhile.
    ///
    /// Returns whether a driver was so quick that work is left: [`Self::take_pending`] then names
    /// the queues for which the host is to come back as if they had been kicked.
    ///
    /// # Errors
    ///
    /// What the device answers, and [`DeviceError::Queue`] for rings that make no sense. The host
    /// stops the device then.
    pub fn handle<M: GuestMemory>(
        &mut self,
        event: Event,
        device: &mut dyn Device<M>,
        memory: &M,
        queues: &mut dyn QueueSet,
    ) -> Result<bool, DeviceError> {
        self.run(event, device, memory, queues)?;
        for _ in 0..MAX_ROUNDS {
            let Some(index) = self.queues.iter().position(|queue| queue.again) else {
                return Ok(false);
            };
            self.run(Event::Kick(index), device, memory, queues)?;
        }
        Ok(self.queues.iter().any(|queue| queue.again))
    }

    /// The queues with work left, which this call forgets.
    pub fn take_pending(&mut self) -> impl Iterator<Item = usize> {
        self.queues
            .iter_mut()
            .enumerate()
            .filter_map(|(index, queue)| std::mem::take(&mut queue.again).then_some(index))
    }

    fn run<M: GuestMemory>(
        &mut self,
        event: Event,
        device: &mut dyn Device<M>,
        memory: &M,
        queues: &mut dyn QueueSet,
    ) -> Result<(), DeviceError> {
        for (index, watch) in self.queues.iter_mut().enumerate() {
            let Some(queue) = queues.queue(index) else {
                *watch = Watch::default();
                continue;
            };
            watch.next = queue.next_avail();
            watch.used = queue.next_used();
            if event == Event::Kick(index) {
                let failed = |source| DeviceError::Queue {
                    queue: index,
                    source,
                };
                queue.disable_notification(memory).map_err(failed)?;
                let avail = queue.avail_idx(memory, Ordering::Acquire).map_err(failed)?;
                watch.seen = Some(avail.0);
                watch.again = false;
            }
        }

        match event {
            // A kick of a queue that the driver never set up means nothing.
            Event::Kick(index) if queues.queue(index).is_none() => {}
            Event::Kick(index) => device.queue_event(index, memory, queues)?,
            Event::Host => device.host_event(memory, queues)?,
        }

        for (index, watch) in self.queues.iter_mut().enumerate() {
            let Some(queue) = queues.queue(index) else {
                continue;
            };
            // A handler uses no more buffers than the queue holds: the index does not lap itself.
            let used = queue.next_used().wrapping_sub(watch.used);
            if let Some(meter) = queues.meter() {
                meter.used(index, used.into());
            }
            let Some(queue) = queues.queue(index) else {
                continue;
            };
            let failed = |source| DeviceError::Queue {
                queue: index,
                source,
            };
            let avail = queue.avail_idx(memory, Ordering::Acquire).map_err(failed)?;
            let next = queue.next_avail();
            if (avail - Wrapping(next)).0 > queue.size() {
                return Err(failed(QueueError::InvalidAvailRingIndex));
            }
            // Buffers that are left were left on purpose if the queue's handler saw them all before
            // and took none: what another event took since are those that it had something for.
            let took_some = event == Event::Kick(index) && next != watch.next;
            let on_purpose = watch.seen == Some(avail.0) && !took_some;
            if avail.0 != next && !on_purpose {
                watch.again = true;
                continue;
            }
            // The kick to ask for is that for the next buffer which comes, whichever are left.
            queue.set_next_avail(avail.0);
            let came = queue.enable_notification(memory);
            queue.set_next_avail(next);
            watch.again |= came.map_err(failed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "dispatch/tests.rs"]
mod tests;
