//! The entropy device, with honest and with hostile requests.

use std::time::{Duration, Instant};

use microvm_vmm::QueueMetrics;
use microvm_vmm::devices::rng::Rng;
use microvm_vmm::virtio::{DeviceEventKind, Transport, VirtioDeviceSource};
use vm_memory::{Bytes, GuestAddress};

use crate::support::{Driver, MEMORY, NEXT, Ring, WRITE, memory};

const BUFFER: u64 = 0x10_0000;
const INDIRECT: u16 = 4;

fn rng() -> Driver {
    Driver::of(memory(), VirtioDeviceSource::Hosted(Box::new(Rng::new())))
}

fn buffer(driver: &Driver, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    driver
        .memory
        .read_slice(&mut bytes, GuestAddress(BUFFER))
        .unwrap();
    bytes
}

#[test]
fn requests_are_filled_with_random_bytes() {
    let driver = rng();
    let mut ring = Ring::new(&driver.memory, 0x1000, 8, true);
    driver.start(driver.offered_features(), &[&ring]);
    ring.describe(0, BUFFER, 64, WRITE | NEXT, 1);
    ring.describe(1, BUFFER + 64, 36, WRITE, 0);
    ring.publish(0);
    driver.kick(0);
    assert_eq!(driver.wait_used(&mut ring), (0, 100));
    let first = buffer(&driver, 164);
    assert!(first[..64].iter().any(|byte| *byte != 0));
    assert!(first[64..100].iter().any(|byte| *byte != 0));
    assert!(first[100..].iter().all(|byte| *byte == 0));
    ring.publish(0);
    driver.kick(0);
    driver.wait_used(&mut ring);
    assert_ne!(buffer(&driver, 100), first[..100]);
}

#[test]
fn a_request_gets_no_more_than_64_kibibytes() {
    let driver = rng();
    let mut ring = Ring::new(&driver.memory, 0x1000, 8, false);
    driver.start(Driver::VERSION_1, &[&ring]);
    ring.describe(0, BUFFER, 60_000, WRITE | NEXT, 1);
    ring.describe(1, BUFFER + 60_000, 2 << 20, WRITE, 0);
    ring.publish(0);
    driver.kick(0);
    assert_eq!(driver.wait_used(&mut ring), (0, 0x1_0000));
    assert!(
        buffer(&driver, 0x1_1000)[0x1_0000..]
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[test]
fn what_passes_is_counted_but_not_the_kicks_of_its_own_host() {
    let driver = rng();
    let meter = driver.transport.meter().clone();
    let mut ring = Ring::new(&driver.memory, 0x1000, 8, false);
    ring.describe(0, BUFFER, 100, WRITE, 0);
    // The host finds this one by kicking itself.
    ring.publish(0);
    driver.start(Driver::VERSION_1, &[&ring]);
    driver.wait_used(&mut ring);
    for _ in 0..3 {
        ring.publish(0);
        driver.kick(0);
        driver.wait_used(&mut ring);
    }
    while driver.pending_interrupt().is_some() {}
    // It may have found buffers before it took their kicks, and takes those later.
    let patience = Instant::now() + Duration::from_secs(20);
    let kicks = || meter.metrics().queues.unwrap()[0].kicks;
    while kicks() < 3 {
        assert!(Instant::now() < patience, "{} kicks", kicks());
        std::thread::yield_now();
    }
    driver.transport.stop();
    drop(driver);
    let metrics = meter.metrics();
    let counted = QueueMetrics {
        kicks: 3,
        interrupts: 4,
        buffers: 4,
        bytes: 400,
    };
    assert_eq!(metrics.queues.as_deref(), Some(&[counted][..]));
    // Two interrupts that are not handled in time are one.
    assert!((1..=4).contains(&metrics.acknowledged_interrupts));
    assert!(!meter.time().is_zero());
}

/// Hands the device one chain and returns what it made of it: the used length, or `None` where it
/// stopped and asked for a reset.
fn outcome(describe: impl FnOnce(&Driver, &Ring), head: u16) -> Option<u32> {
    let driver = rng();
    let mut ring = Ring::new(&driver.memory, 0x1000, 8, false);
    describe(&driver, &ring);
    driver.negotiate(Driver::VERSION_1);
    driver.set_queue(0, 8, ring.addresses());
    ring.publish(head);
    driver.add_status(Driver::DRIVER_OK);
    driver.wait_interrupt();
    match ring.take_used() {
        Some((_, length)) => Some(length),
        None => {
            assert_ne!(driver.status() & Driver::NEEDS_RESET, 0);
            assert!(matches!(
                driver.wait_event().kind,
                DeviceEventKind::Failed(_)
            ));
            None
        }
    }
}

#[test]
fn a_chain_that_loops_ends_with_the_ring() {
    let looped = outcome(
        |_, ring| {
            ring.describe(0, BUFFER, 1, WRITE | NEXT, 1);
            ring.describe(1, BUFFER, 1, WRITE | NEXT, 0);
        },
        0,
    );
    assert_eq!(looped, Some(8));
    let own = outcome(|_, ring| ring.describe(0, BUFFER, 1, WRITE | NEXT, 0), 0);
    assert_eq!(own, Some(8));
}

#[test]
fn links_and_heads_beyond_the_ring_end_a_chain() {
    let link = outcome(|_, ring| ring.describe(0, BUFFER, 5, WRITE | NEXT, 8), 0);
    assert_eq!(link, Some(5));
    assert_eq!(outcome(|_, _| {}, 8), None);
    assert_eq!(outcome(|_, _| {}, u16::MAX), None);
}

#[test]
fn empty_and_readable_buffers_get_nothing() {
    assert_eq!(
        outcome(|_, ring| ring.describe(0, BUFFER, 0, WRITE, 0), 0),
        Some(0)
    );
    assert_eq!(
        outcome(|_, ring| ring.describe(0, BUFFER, 9, 0, 0), 0),
        None
    );
}

#[test]
fn buffers_outside_memory_stop_the_device() {
    for (address, length) in [
        (MEMORY, 1),
        (MEMORY - 1, 2),
        (u64::MAX, 1),
        (u64::MAX - 3, 8),
        (0xd000_0000, 4),
        (MEMORY - 4096, u32::MAX),
    ] {
        let made = outcome(|_, ring| ring.describe(0, address, length, WRITE, 0), 0);
        assert_eq!(made, None, "{address:#x} {length:#x}");
    }
}

#[test]
fn indirect_tables_are_bounded_and_do_not_nest() {
    let table = 0x20_0000;
    let entry = |driver: &Driver, index: u64, address: u64, length: u32, flags: u16, next: u16| {
        let at = table + 16 * index;
        driver.memory.write_obj(address, GuestAddress(at)).unwrap();
        driver
            .memory
            .write_obj(length, GuestAddress(at + 8))
            .unwrap();
        driver
            .memory
            .write_obj(flags, GuestAddress(at + 12))
            .unwrap();
        driver
            .memory
            .write_obj(next, GuestAddress(at + 14))
            .unwrap();
    };
    let of = |entries: u64| {
        outcome(
            |driver, ring| {
                for index in 0..entries {
                    entry(driver, index, BUFFER, 1, WRITE | NEXT, index as u16 + 1);
                }
                ring.describe(0, table, entries as u32 * 16, INDIRECT, 0);
            },
            0,
        )
    };
    // Pieces of guest memory that one request may have, however it says where they are.
    assert_eq!(of(1024), Some(1024));
    assert_eq!(of(1025), None);
    let nested = outcome(
        |driver, ring| {
            entry(driver, 0, table, 16, INDIRECT, 0);
            ring.describe(0, table, 16, INDIRECT, 0);
        },
        0,
    );
    assert_eq!(nested, Some(0));
    let odd = outcome(|_, ring| ring.describe(0, table, 15, INDIRECT, 0), 0);
    assert_eq!(odd, Some(0));
}
