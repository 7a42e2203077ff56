use std::os::fd::BorrowedFd;

use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Dispatcher, Event, MAX_ROUNDS};
use crate::{Device, DeviceError, DeviceMeter, QueueSet};

type Memory = GuestMemoryMmap<()>;

/// A device that takes as many chains as it is told in each call, while a driver of the quickest
/// sort adds some.
#[derive(Default)]
struct Scripted {
    takes: u16,
    driver_adds: u16,
    /// How many an event of the host takes, where that is not as many as a kick.
    host_takes: Option<u16>,
    /// Events of the host have nothing to do with the queue.
    host_is_blind: bool,
    calls: usize,
    host_calls: usize,
}

struct Queues(Option<Queue>, DeviceMeter);

impl QueueSet for Queues {
    fn count(&self) -> usize {
        1
    }

    fn queue(&mut self, index: usize) -> Option<&mut Queue> {
        self.0.as_mut().filter(|_| index == 0)
    }

    fn signal(&self, _index: usize) {}

    fn meter(&self) -> Option<&DeviceMeter> {
        Some(&self.1)
    }
}

impl Device<Memory> for Scripted {
    fn device_type(&self) -> u32 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[16]
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _offset: u32, _data: &mut [u8]) {}

    fn event_source(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn queue_event(
        &mut self,
        index: usize,
        memory: &Memory,
        queues: &mut dyn QueueSet,
    ) -> Result<(), DeviceError> {
        self.calls += 1;
        let queue = queues.queue(index).unwrap();
        take(queue, memory, self.takes);
        let at = GuestAddress(queue.avail_ring() + 2);
        let avail: u16 = memory.read_obj(at).unwrap();
        memory
            .write_obj(avail.wrapping_add(self.driver_adds), at)
            .unwrap();
        Ok(())
    }

    fn host_event(
        &mut self,
        memory: &Memory,
        queues: &mut dyn QueueSet,
    ) -> Result<(), DeviceError> {
        self.host_calls += 1;
        if let Some(count) = self.host_takes {
            take(queues.queue(0).unwrap(), memory, count);
            return Ok(());
        }
        if self.host_is_blind {
            return Ok(());
        }
        self.queue_event(0, memory, queues)
    }

    fn reset(&mut self) {}
}

fn take(queue: &mut Queue, memory: &Memory, count: u16) {
    for _ in 0..count {
        if let Some(chain) = queue.iter(memory).unwrap().next() {
            let head = chain.head_index();
            queue.add_used(memory, head, 0).unwrap();
        }
    }
}

fn memory() -> Memory {
    Memory::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap()
}

/// A queue with `chains` buffers available.
fn queues(memory: &Memory, chains: u16, event_idx: bool) -> Queues {
    let mock = MockSplitQueue::new(memory, 16);
    let buffers: Vec<RawDescriptor> = (0..chains)
        .map(|_| Descriptor::new(0x8000, 8, 0, 0).into())
        .collect();
    if !buffers.is_empty() {
        mock.add_desc_chains(&buffers, 0).unwrap();
    }
    let mut queue: Queue = mock.create_queue().unwrap();
    queue.set_event_idx(event_idx);
    Queues(Some(queue), DeviceMeter::new(1))
}

/// How many buffers were counted as given back.
fn buffers(queues: &Queues) -> u64 {
    queues.1.queues()[0].buffers
}

/// Whether the driver would kick for the buffer after `avail`.
fn kick_wanted(memory: &Memory, queues: &Queues, avail: u16) -> bool {
    let queue = queues.0.as_ref().unwrap();
    let used = queue.used_ring();
    if queue.event_idx_enabled() {
        let event = used + 4 + 8 * u64::from(queue.size());
        let event: u16 = memory.read_obj(GuestAddress(event)).unwrap();
        event == avail
    } else {
        let flags: u16 = memory.read_obj(GuestAddress(used)).unwrap();
        flags & 1 == 0
    }
}

#[test]
fn one_kick_is_one_call_where_the_device_takes_all() {
    for event_idx in [false, true] {
        let memory = memory();
        let mut queues = queues(&memory, 3, event_idx);
        let mut device = Scripted {
            takes: 16,
            ..Scripted::default()
        };
        let mut dispatcher = Dispatcher::new(1);
        let left = dispatcher
            .handle(Event::Kick(0), &mut device, &memory, &mut queues)
            .unwrap();
        assert!(!left);
        assert_eq!(device.calls, 1);
        assert!(kick_wanted(&memory, &queues, 3));
        assert_eq!(buffers(&queues), 3);
    }
}

#[test]
fn a_device_that_takes_some_is_called_until_it_has_all() {
    let memory = memory();
    let mut queues = queues(&memory, 3, true);
    let mut device = Scripted {
        takes: 1,
        ..Scripted::default()
    };
    let mut dispatcher = Dispatcher::new(1);
    dispatcher
        .handle(Event::Kick(0), &mut device, &memory, &mut queues)
        .unwrap();
    assert_eq!(device.calls, 3);
    assert!(kick_wanted(&memory, &queues, 3));
    assert_eq!(buffers(&queues), 3);
}

#[test]
fn a_device_that_leaves_all_is_called_once_and_hears_of_the_next_buffer() {
    for event_idx in [false, true] {
        let memory = memory();
        let mut queues = queues(&memory, 3, event_idx);
        let mut device = Scripted::default();
        let mut dispatcher = Dispatcher::new(1);
        let left = dispatcher
            .handle(Event::Kick(0), &mut device, &memory, &mut queues)
            .unwrap();
        assert!(!left);
        assert_eq!(device.calls, 1);
        assert_eq!(queues.0.as_ref().unwrap().next_avail(), 0);
        assert_eq!(buffers(&queues), 0);
        assert!(kick_wanted(&memory, &queues, 3));
    }
}

#[test]
fn a_driver_that_never_stops_adding_gets_a_bounded_number_of_calls() {
    let memory = memory();
    let mut queues = queues(&memory, 1, true);
    let mut device = Scripted {
        takes: 1,
        driver_adds: 1,
        ..Scripted::default()
    };
    let mut dispatcher = Dispatcher::new(1);
    let left = dispatcher
        .handle(Event::Kick(0), &mut device, &memory, &mut queues)
        .unwrap();
    assert!(left);
    assert_eq!(device.calls, 1 + MAX_ROUNDS);
    assert_eq!(dispatcher.take_pending().collect::<Vec<_>>(), [0]);
    assert_eq!(dispatcher.take_pending().count(), 0);
}

#[test]
fn buffers_that_come_during_a_host_event_are_handled() {
    let memory = memory();
    let mut queues = queues(&memory, 0, true);
    let mut device = Scripted {
        driver_adds: 1,
        ..Scripted::default()
    };
    let mut dispatcher = Dispatcher::new(1);
    dispatcher
        .handle(Event::Host, &mut device, &memory, &mut queues)
        .unwrap();
    assert_eq!(device.host_calls, 1);
    assert!(device.calls > 1);
}

#[test]
fn a_buffer_that_came_before_an_event_of_something_else_is_handled() {
    // The driver has published it and is about to ask whether to kick: after the event it reads
    // that the kick is wanted for the next one only.
    let memory = memory();
    let mut queues = queues(&memory, 1, true);
    let mut device = Scripted {
        takes: 1,
        host_is_blind: true,
        ..Scripted::default()
    };
    let mut dispatcher = Dispatcher::new(1);
    let left = dispatcher
        .handle(Event::Host, &mut device, &memory, &mut queues)
        .unwrap();
    assert!(!left);
    assert_eq!(device.calls, 1);
    assert_eq!(buffers(&queues), 1);
    assert!(kick_wanted(&memory, &queues, 1));
}

#[test]
fn buffers_that_were_left_once_are_not_offered_again_by_events_of_something_else() {
    let memory = memory();
    let mut queues = queues(&memory, 3, true);
    let mut device = Scripted {
        host_is_blind: true,
        ..Scripted::default()
    };
    let mut dispatcher = Dispatcher::new(1);
    for _ in 0..3 {
        dispatcher
            .handle(Event::Host, &mut device, &memory, &mut queues)
            .unwrap();
    }
    assert_eq!((device.host_calls, device.calls), (3, 1));
    assert!(kick_wanted(&memory, &queues, 3));
}

#[test]
fn an_event_of_something_else_that_takes_some_of_the_buffers_needs_no_call_for_the_rest() {
    for event_idx in [false, true] {
        let memory = memory();
        let mut queues = queues(&memory, 3, event_idx);
        let mut device = Scripted {
            host_takes: Some(1),
            ..Scripted::default()
        };
        let mut dispatcher = Dispatcher::new(1);
        for event in [Event::Kick(0), Event::Host, Event::Host] {
            let left = dispatcher
                .handle(event, &mut device, &memory, &mut queues)
                .unwrap();
            assert!(!left);
            assert!(kick_wanted(&memory, &queues, 3));
        }
        assert_eq!((device.host_calls, device.calls), (2, 1));
        assert_eq!(buffers(&queues), 2);
    }
}

#[test]
fn buffers_that_an_event_of_something_else_was_the_first_to_see_are_handled() {
    let memory = memory();
    let mut queues = queues(&memory, 3, true);
    let mut device = Scripted {
        takes: 16,
        host_takes: Some(1),
        ..Scripted::default()
    };
    let left = Dispatcher::new(1)
        .handle(Event::Host, &mut device, &memory, &mut queues)
        .unwrap();
    assert!(!left);
    assert_eq!((device.host_calls, device.calls), (1, 1));
    assert_eq!(buffers(&queues), 3);
}

#[test]
fn an_index_that_jumps_past_the_ring_is_an_error() {
    let memory = memory();
    let mut queues = queues(&memory, 0, false);
    let mut device = Scripted {
        driver_adds: 17,
        ..Scripted::default()
    };
    let failed = Dispatcher::new(1).handle(Event::Kick(0), &mut device, &memory, &mut queues);
    assert!(matches!(failed, Err(DeviceError::Queue { queue: 0, .. })));
}

#[test]
fn a_kick_of_a_queue_that_is_not_set_up_calls_nobody() {
    let memory = memory();
    let mut device = Scripted::default();
    let mut dispatcher = Dispatcher::new(1);
    for index in [0, 1, usize::MAX] {
        let left = dispatcher
            .handle(
                Event::Kick(index),
                &mut device,
                &memory,
                &mut Queues(None, DeviceMeter::new(1)),
            )
            .unwrap();
        assert!(!left);
    }
    assert_eq!(device.calls, 0);
}
