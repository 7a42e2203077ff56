//! The device, called so that neither a panic nor the lack of a driver does harm.

use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use microvm_virtio::{Device, Dispatcher, Event, QueueSet};
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

use super::kicks::Kicks;
use super::queues::HostedQueues;
use crate::virtio::error::VirtioError;

/// A device and what it works on. Behind one lock, which makes its calls one at a time.
pub(super) struct Core {
    /// Gone with the stop or a failure for good, so that what it holds on the host is gone then,
    /// too.
    pub(super) device: Option<Box<dyn Device<GuestMemoryMmap>>>,
    pub(super) active: Option<Active>,
    pub(super) kicks: Kicks,
    pub(super) paused: bool,
    pub(super) stopped: bool,
}

/// The queues of a device without a driver.
struct NoQueues;

impl QueueSet for NoQueues {
    fn count(&self) -> usize {
        0
    }

    fn queue(&mut self, _index: usize) -> Option<&mut Queue> {
        None
    }

    fn signal(&self, _index: usize) {}
}

/// What the driver set up.
pub(super) struct Active {
    pub(super) queues: HostedQueues,
    pub(super) dispatcher: Dispatcher,
}

impl Core {
    /// Calls the device; a panic in it becomes an error, as it may be the guest's doing and must
    /// not end the process.
    pub(super) fn call<T>(
        &mut self,
        call: impl FnOnce(&mut dyn Device<GuestMemoryMmap>) -> T,
    ) -> Result<T, VirtioError> {
        let device = self.device.as_mut().ok_or(VirtioError::Stopped)?;
        catch_unwind(AssertUnwindSafe(|| call(device.as_mut()))).map_err(|_| VirtioError::Panic)
    }

    /// See [`Device::event_source`].
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        let device = self.device.as_ref()?;
        catch_unwind(AssertUnwindSafe(|| device.event_source())).ok()?
    }

    /// Has the device work on an event.
    pub(super) fn dispatch(
        &mut self,
        event: Event,
        memory: &GuestMemoryMmap,
    ) -> Result<(), VirtioError> {
        let Self {
            device,
            active,
            kicks,
            ..
        } = self;
        let Some(device) = device else {
            return Ok(());
        };
        let Some(active) = active else {
            return match event {
                // Connections to the host end properly without a driver, too.
                Event::Host => catch_unwind(AssertUnwindSafe(|| {
                    device.host_event(memory, &mut NoQueues)
                }))
                .map_err(|_| VirtioError::Panic)?
                .map_err(VirtioError::Device),
                Event::Kick(_) => Ok(()),
            };
        };
        let left = catch_unwind(AssertUnwindSafe(|| {
            active
                .dispatcher
                .handle(event, device.as_mut(), memory, &mut active.queues)
        }))
        .map_err(|_| VirtioError::Panic)??;
        if left {
            for index in active.dispatcher.take_pending() {
                kicks.again(index);
            }
        }
        Ok(())
    }
}
