//! Whatever a guest writes to registers and rings: no panic, no loop without end, nothing written
//! outside what it handed over.

use std::sync::Arc;

use microvm_virtio::{Device, Dispatcher, Event, QueueSet};
use microvm_vmm::bus::BusDevice;
use microvm_vmm::devices::rng::Rng;
use microvm_vmm::virtio::{MmioTransport, Transport, VirtioDeviceSource};
use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::support::memory;

#[derive(Debug, Clone)]
enum Access {
    Read(u64, usize),
    Write(u64, Vec<u8>),
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0_u64..0x30).prop_map(|index| index * 4),
        4 => (0_u64..0x100).prop_map(|index| index * 4),
        1 => any::<u64>(),
        1 => 0_u64..0x400,
    ]
}

fn value() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0_u32..16,
        2 => (0_u32..32).prop_map(|bit| 1 << bit),
        2 => (0_u32..0x400).prop_map(|page| page << 12),
        1 => any::<u32>(),
    ]
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![
        1 => (offset(), 0_usize..9).prop_map(|(offset, length)| Access::Read(offset, length)),
        4 => (offset(), value())
            .prop_map(|(offset, value)| Access::Write(offset, value.to_le_bytes().to_vec())),
        // The registers in the order of a driver, so that deep states are reached.
        4 => (prop::sample::select(&[0x70, 0x30, 0x38, 0x44, 0x80, 0x90, 0xa0, 0x50, 0x24, 0x20]),
              value())
            .prop_map(|(offset, value)| Access::Write(offset, value.to_le_bytes().to_vec())),
        1 => (offset(), prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(offset, data)| Access::Write(offset, data)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, fork: false, ..ProptestConfig::default() })]

    #[test]
    fn any_register_accesses_are_survived(
        accesses in prop::collection::vec(access(), 1..200),
        negotiated in any::<bool>(),
    ) {
        let memory = memory();
        let transport = MmioTransport::new(
            Arc::clone(&memory),
            VirtioDeviceSource::Hosted(Box::new(Rng::new())),
            Arc::new(|_| {}),
        ).unwrap();
        let write = |offset: u64, value: u32| transport.write(offset, &value.to_le_bytes());
        if negotiated {
            write(0x70, 3);
            write(0x24, 1);
            write(0x20, 1);
            write(0x70, 11);
        }
        for access in &accesses {
            let before = transport.state();
            match access {
                Access::Read(offset, length) => {
                    transport.read(*offset, &mut vec![0; *length]);
                    prop_assert_eq!(transport.state(), before);
                }
                Access::Write(offset, data) => {
                    transport.write(*offset, data);
                    let after = transport.state();
                    let reset = after.status == 0;
                    prop_assert!(reset || after.status & before.status == before.status);
                    if before.status & 4 != 0 && !reset {
                        prop_assert_eq!(after.queues, before.queues);
                    }
                }
            }
        }
        transport.stop();
    }
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

const RAM: usize = 0x8000;
const SIZE: u16 = 8;
const TABLE: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;

fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![
        6 => 0x4000_u64..0x8000,
        1 => 0_u64..0x9000,
        1 => any::<u64>(),
        1 => Just(u64::MAX),
    ];
    let length =
        prop_oneof![6 => 0_u32..512, 1 => any::<u32>(), 1 => Just(u32::MAX), 1 => Just(32)];
    let flags = prop_oneof![6 => Just(2_u16), 6 => Just(3_u16), 2 => 0_u16..8, 1 => any::<u16>()];
    let next = prop_oneof![8 => 0_u16..SIZE, 1 => any::<u16>()];
    (address, length, flags, next)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, fork: false, ..ProptestConfig::default() })]

    #[test]
    fn any_ring_content_is_survived(
        descriptors in prop::collection::vec(descriptor(), usize::from(SIZE)),
        heads in prop::collection::vec(prop_oneof![8 => 0_u16..SIZE, 1 => any::<u16>()], usize::from(SIZE)),
        avail in prop_oneof![8 => 0_u16..=SIZE, 1 => any::<u16>()],
        used_event in any::<u16>(),
        event_idx in any::<bool>(),
        table in prop_oneof![8 => Just(TABLE), 1 => (0_u64..0x700).prop_map(|at| at * 16)],
    ) {
        let memory =
            GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        for (index, (address, length, flags, next)) in (0..).zip(&descriptors) {
            let at = TABLE + 16 * index;
            memory.write_obj(*address, GuestAddress(at)).unwrap();
            memory.write_obj(*length, GuestAddress(at + 8)).unwrap();
            memory.write_obj(*flags, GuestAddress(at + 12)).unwrap();
            memory.write_obj(*next, GuestAddress(at + 14)).unwrap();
        }
        memory.write_obj(avail, GuestAddress(AVAIL + 2)).unwrap();
        for (index, head) in (0..).zip(&heads) {
            memory.write_obj(*head, GuestAddress(AVAIL + 4 + 2 * index)).unwrap();
        }
        memory.write_obj(used_event, GuestAddress(AVAIL + 4 + 2 * u64::from(SIZE))).unwrap();

        let mut queue = Queue::new(SIZE).unwrap();
        queue.try_set_desc_table_address(GuestAddress(table)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(AVAIL)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        let mut queues = OneQueue(queue);
        let mut device = Rng::new();
        let device: &mut dyn Device<GuestMemoryMmap> = &mut device;
        let mut dispatcher = Dispatcher::new(1);
        // Whether it fails or not is the content's doing.
        let _ = dispatcher.handle(Event::Kick(0), device, &memory, &mut queues);
        let _ = dispatcher.handle(Event::Host, device, &memory, &mut queues);
    }
}
