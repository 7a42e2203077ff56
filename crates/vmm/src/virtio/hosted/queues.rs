//! The queues of one activation.

use std::sync::Arc;

use microvm_virtio::{DeviceMeter, QueueSet};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use crate::virtio::error::VirtioError;
use crate::virtio::state::{QueueState, RingPosition};
use crate::virtio::transport::Interrupt;

/// The queues that the driver set up, as the device works on them.
pub(super) struct HostedQueues {
    queues: Vec<Option<Queue>>,
    interrupt: Arc<dyn Interrupt>,
    meter: Arc<DeviceMeter>,
}

impl HostedQueues {
    /// Takes queues over whose rings were checked; `event_idx` tells whether the driver took
    /// `VIRTIO_F_EVENT_IDX`.
    pub(super) fn new(
        states: &[QueueState],
        event_idx: bool,
        interrupt: Arc<dyn Interrupt>,
        meter: Arc<DeviceMeter>,
    ) -> Result<Self, VirtioError> {
        let queues = states
            .iter()
            .enumerate()
            .map(|(index, state)| ring(index, state, event_idx))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            queues,
            interrupt,
            meter,
        })
    }

    /// Whether the driver set each queue up.
    pub(super) fn ready(&self) -> impl Iterator<Item = bool> {
        self.queues.iter().map(Option::is_some)
    }

    /// How far the device got in each.
    pub(super) fn positions(&self) -> Vec<RingPosition> {
        self.queues
            .iter()
            .map(|queue| queue.as_ref().map_or_else(RingPosition::default, position))
            .collect()
    }
}

impl QueueSet for HostedQueues {
    fn count(&self) -> usize {
        self.queues.len()
    }

    fn queue(&mut self, index: usize) -> Option<&mut Queue> {
        self.queues.get_mut(index)?.as_mut()
    }

    fn signal(&self, index: usize) {
        self.meter.interrupted(index);
        self.interrupt.signal_queue(index);
    }

    fn meter(&self) -> Option<&DeviceMeter> {
        Some(&self.meter)
    }

    fn signal_config(&self) {
        self.interrupt.signal_config();
    }
}

/// The queue code's view of a checked queue, or `None` for one that the driver left alone.
fn ring(index: usize, state: &QueueState, event_idx: bool) -> Result<Option<Queue>, VirtioError> {
    if !state.ready {
        return Ok(None);
    }
    let make = || -> Result<Queue, virtio_queue::Error> {
        let mut queue = Queue::new(state.max_size)?;
        queue.try_set_size(state.size)?;
        queue.try_set_desc_table_address(GuestAddress(state.descriptor_table))?;
        queue.try_set_avail_ring_address(GuestAddress(state.avail_ring))?;
        queue.try_set_used_ring_address(GuestAddress(state.used_ring))?;
        queue.set_event_idx(event_idx);
        queue.set_next_avail(state.position.next_avail);
        queue.set_next_used(state.position.next_used);
        queue.set_ready(true);
        Ok(queue)
    };
    make().map(Some).map_err(|_| VirtioError::Ring {
        queue: index,
        reason: "the queue code refuses it",
    })
}

fn position(queue: &Queue) -> RingPosition {
    RingPosition {
        next_avail: queue.next_avail(),
        next_used: queue.next_used(),
    }
}
