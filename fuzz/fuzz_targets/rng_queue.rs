//! Any memory behind the entropy device's queue.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use microvm_virtio::{Device, Dispatcher, Event, QueueSet};
use microvm_vmm::devices::rng::Rng;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const RAM: usize = 0x1_0000;

#[derive(Debug, Arbitrary)]
struct Input {
    size_bits: u8,
    event_idx: bool,
    descriptor_table: u16,
    avail_ring: u16,
    used_ring: u16,
    next_avail: u16,
    /// Written over memory from `at`, then one kick.
    kicks: Vec<(u16, Vec<u8>)>,
}

struct OneQueue(Queue);

impl QueueSet for OneQueue {
    fn count(&self) -> usize {
        1
    }

    fn queue(&mut self, index: usize) -> Option<&mut Queue> {
        (index == 0).then_some(&mut self.0)
    }

    fn signal(&self, _index: usize) {}
}

fuzz_target!(|input: Input| {
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), RAM)]).expect("memory");
    let mut queue = Queue::new(1 << (input.size_bits % 9)).expect("a queue");
    let _ = queue.try_set_desc_table_address(GuestAddress(u64::from(input.descriptor_table & !15)));
    let _ = queue.try_set_avail_ring_address(GuestAddress(u64::from(input.avail_ring & !1)));
    let _ = queue.try_set_used_ring_address(GuestAddress(u64::from(input.used_ring & !3)));
    queue.set_event_idx(input.event_idx);
    queue.set_next_avail(input.next_avail);
    queue.set_ready(true);
    let mut queues = OneQueue(queue);
    let mut rng = Rng::new();
    let device: &mut dyn Device<GuestMemoryMmap> = &mut rng;
    let mut dispatcher = Dispatcher::new(1);
    for (at, bytes) in &input.kicks {
        let _ = memory.write(bytes, GuestAddress((*at).into()));
        // The first error ends the device, as its host would.
        if dispatcher
            .handle(Event::Kick(0), device, &memory, &mut queues)
            .is_err()
        {
            return;
        }
    }
});
