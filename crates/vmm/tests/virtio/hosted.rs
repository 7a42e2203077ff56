//! The thread that hosts device code: nothing lost, nothing after a reset, nothing left behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use microvm_vmm::virtio::{DeviceEventKind, Transport, VirtioDeviceSource, VirtioError};
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_STATUS;

use crate::support::{Call, Driver, Probe, Ring, Script, memory};

type Scripts = Arc<Mutex<std::collections::VecDeque<Script>>>;

fn probe(sizes: &[u16]) -> (Driver, Receiver<Call>, Scripts) {
    let (calls, receiver) = channel();
    let device = Probe::new(calls, sizes);
    let script = device.script();
    let source = VirtioDeviceSource::Hosted(Box::new(device));
    (Driver::of(memory(), source), receiver, script)
}

/// Publishes `count` buffers with as few kicks as the ring's rules allow; every one has to come
/// back. A host that loses one kick hangs this.
fn pump(driver: &Driver, ring: &mut Ring, count: u32) {
    let (mut published, mut returned, mut kicks) = (0, 0, 0);
    while returned < count {
        if published < count && published - returned < u32::from(ring.size) {
            let head = u16::try_from(published % u32::from(ring.size)).unwrap();
            if ring.publish(head) {
                driver.kick(0);
                kicks += 1;
            }
            published += 1;
        } else {
            driver.wait_used(ring);
            returned += 1;
        }
        while let Some(_used) = (returned < published).then(|| ring.take_used()).flatten() {
            returned += 1;
        }
    }
    assert!(kicks <= count);
}

#[test]
fn no_kick_is_lost_with_event_idx() {
    let (driver, _calls, _) = probe(&[16]);
    for size in [1, 2, 16] {
        let mut ring = Ring::new(&driver.memory, 0x1000, size, true);
        driver.start(Driver::VERSION_1 | Driver::EVENT_IDX, &[&ring]);
        pump(&driver, &mut ring, 100_000);
    }
}

#[test]
fn no_kick_is_lost_without_event_idx() {
    let (driver, _calls, _) = probe(&[16]);
    for size in [1, 2, 16] {
        let mut ring = Ring::new(&driver.memory, 0x1000, size, false);
        driver.start(Driver::VERSION_1, &[&ring]);
        pump(&driver, &mut ring, 100_000);
    }
}

#[test]
fn buffers_from_before_driver_ok_are_seen_without_a_kick() {
    let (driver, _calls, _) = probe(&[8]);
    let mut ring = Ring::new(&driver.memory, 0x1000, 8, false);
    ring.publish(3);
    driver.start(Driver::VERSION_1, &[&ring]);
    assert_eq!(driver.wait_used(&mut ring), (3, 7));
}

#[test]
fn buffers_that_the_device_leaves_neither_hide_new_ones_nor_make_its_thread_spin() {
    for event_idx in [false, true] {
        let (driver, calls, script) = probe(&[8]);
        let mut ring = Ring::new(&driver.memory, 0x1000, 8, event_idx);
        script
            .lock()
            .unwrap()
            .extend([Script::Leave, Script::Leave]);
        ring.publish(0);
        let features = if event_idx { Driver::EVENT_IDX } else { 0 };
        driver.start(Driver::VERSION_1 | features, &[&ring]);
        while calls.recv().unwrap() != Call::Queue(0) {}
        // The device was called; once it sleeps again, it wants to hear of the next buffer.
        driver.transport.pause().unwrap();
        driver.transport.resume().unwrap();
        assert!(ring.publish(1), "no kick is asked for");
        driver.kick(0);
        assert_eq!(calls.recv().unwrap(), Call::Queue(0));
        driver.transport.pause().unwrap();
        driver.transport.resume().unwrap();
        assert!(ring.publish(2), "no kick is asked for");
        driver.kick(0);
        for _ in 0..3 {
            driver.wait_used(&mut ring);
        }
        driver.transport.stop();
        assert_eq!(calls.try_iter().collect::<Vec<_>>(), [Call::Queue(0)]);
    }
}

#[test]
fn queues_that_the_driver_left_alone_are_not_touched() {
    let (driver, calls, _) = probe(&[8, 8]);
    let mut ring = Ring::new(&driver.memory, 0x1000, 8, false);
    driver.start(Driver::VERSION_1, &[&ring]);
    driver.kick(1);
    ring.publish(0);
    driver.kick(0);
    driver.wait_used(&mut ring);
    driver.transport.stop();
    assert!(calls.try_iter().all(|call| call != Call::Queue(1)));
}

#[test]
fn the_event_source_is_served_before_during_and_after_a_driver() {
    let (calls, receiver) = channel();
    let device = Probe::new(calls, &[8]);
    let source = device.source();
    let driver = Driver::of(memory(), VirtioDeviceSource::Hosted(Box::new(device)));
    let host_is_served = || {
        source.write(1).unwrap();
        while receiver.recv().unwrap() != Call::Host {}
    };
    host_is_served();
    let ring = Ring::new(&driver.memory, 0x1000, 8, false);
    driver.start(Driver::VERSION_1, &[&ring]);
    host_is_served();
    driver.set_status(0);
    host_is_served();
}

#[test]
fn a_failed_device_asks_for_a_reset_and_works_again_after_it() {
    let (driver, calls, script) = probe(&[8]);
    let mut ring = Ring::new(&driver.memory, 0x1000, 8, false);
    script.lock().unwrap().push_back(Script::Fail);
    driver.start(Driver::VERSION_1, &[&ring]);
    let event = driver.wait_event();
    assert!(matches!(
        event.kind,
        DeviceEventKind::Failed(VirtioError::Device(_))
    ));
    driver.wait_interrupt();
    assert_ne!(driver.status() & Driver::NEEDS_RESET, 0);
    // It let its connections go without waiting for the driver.
    assert_eq!(calls.try_iter().last(), Some(Call::Reset));
    driver.start(Driver::VERSION_1, &[&ring]);
    ring.publish(0);
    driver.kick(0);
    assert_eq!(driver.wait_used(&mut ring), (0, 7));
}

#[test]
fn a_panic_in_device_code_ends_the_device_and_nothing_else() {
    let (driver, calls, script) = probe(&[8]);
    let ring = Ring::new(&driver.memory, 0x1000, 8, false);
    script.lock().unwrap().push_back(Script::Panic);
    driver.start(Driver::VERSION_1, &[&ring]);
    let event = driver.wait_event();
    assert!(matches!(
        event.kind,
        DeviceEventKind::Failed(VirtioError::Panic)
    ));
    // The device is gone, with all that it held, and was not called again.
    assert_eq!(calls.iter().last(), Some(Call::Queue(0)));
    assert_eq!(driver.read(0x100), 0);
    assert_ne!(driver.status() & Driver::NEEDS_RESET, 0);
    let status = driver.negotiate(Driver::VERSION_1);
    assert_eq!(
        status & Driver::FEATURES_OK,
        0,
        "no driver may have it again"
    );
    driver.transport.stop();
}

#[test]
fn an_available_index_beyond_the_ring_stops_the_device() {
    let (driver, _calls, script) = probe(&[8]);
    script.lock().unwrap().push_back(Script::Leave);
    let mut ring = Ring::new(&driver.memory, 0x1000, 8, false);
    ring.set_avail_idx(9);
    driver.start(Driver::VERSION_1, &[&ring]);
    assert!(matches!(
        driver.wait_event().kind,
        DeviceEventKind::Failed(VirtioError::Device(_))
    ));
}

#[test]
fn a_paused_device_works_on_nothing_and_takes_up_where_it_was() {
    let (driver, calls, _) = probe(&[8]);
    let mut ring = Ring::new(&driver.memory, 0x1000, 8, false);
    driver.start(Driver::VERSION_1, &[&ring]);
    ring.publish(0);
    driver.kick(0);
    driver.wait_used(&mut ring);

    driver.transport.pause().unwrap();
    driver.transport.pause().unwrap();
    let position = driver.transport.state().queues[0].position;
    assert_eq!((position.next_avail, position.next_used), (1, 1));
    let handled = calls.try_iter().count();
    ring.publish(1);
    driver.kick(0);
    assert!(handled > 0);
    assert_eq!(ring.used_idx(), 1);
    assert_eq!(calls.try_recv().ok(), None);

    driver.transport.resume().unwrap();
    assert_eq!(driver.wait_used(&mut ring), (1, 7));
}

#[test]
fn a_paused_device_can_be_reset_and_stopped() {
    let (driver, calls, _) = probe(&[8]);
    let ring = Ring::new(&driver.memory, 0x1000, 8, false);
    driver.start(Driver::VERSION_1, &[&ring]);
    driver.transport.pause().unwrap();
    let _before = calls.try_iter().count();
    driver.kick(0);
    driver.set_status(0);
    // What came in the pause is not worked on.
    assert_eq!(calls.try_iter().collect::<Vec<_>>(), [Call::Reset]);
    driver.transport.stop();
    driver.transport.stop();
}

/// What was kicked for: the buffer is used when `end` returns, whether the thread came to it or not.
fn is_used_by_the_end(end: fn(&Driver)) {
    // The thread is only sometimes quick enough to hide that it was the last to look.
    for round in 0..200 {
        let (driver, _calls, _) = probe(&[8, 8]);
        let rings = [0x1000, 0x2000].map(|at| Ring::new(&driver.memory, at, 8, round % 2 == 0));
        let features = [0, Driver::EVENT_IDX][usize::from(round % 2 == 0)];
        driver.start(Driver::VERSION_1 | features, &rings.each_ref());
        let mut rings = rings;
        for (queue, ring) in (0..).zip(&mut rings) {
            ring.publish(3);
            driver.kick(queue);
        }
        end(&driver);
        let used = rings.map(|mut ring| ring.take_used());
        assert_eq!(used, [Some((3, 7)), Some((3, 7))], "round {round}");
    }
}

#[test]
fn what_was_kicked_for_before_a_reset_is_worked_on() {
    is_used_by_the_end(|driver| driver.write(VIRTIO_MMIO_STATUS, 0));
}

#[test]
fn what_was_kicked_for_before_a_stop_is_worked_on() {
    is_used_by_the_end(|driver| driver.transport.stop());
}

#[test]
fn what_is_kicked_for_while_the_device_works_is_worked_on_before_a_reset_or_stop() {
    let reset = |driver: &Driver| driver.write(VIRTIO_MMIO_STATUS, 0);
    let stop = |driver: &Driver| driver.transport.stop();
    for end in [reset as fn(&Driver), stop] {
        let (driver, calls, script) = probe(&[8, 8]);
        let busy = Ring::new(&driver.memory, 0x1000, 8, false);
        let mut ring = Ring::new(&driver.memory, 0x2000, 8, false);
        driver.start(Driver::VERSION_1, &[&busy, &ring]);
        while calls.recv().unwrap() != Call::Queue(1) {}
        // Once it sleeps again, the script is for the kick below.
        driver.transport.pause().unwrap();
        driver.transport.resume().unwrap();
        let (go_on, held) = channel();
        script.lock().unwrap().push_back(Script::Hold(held));
        driver.kick(0);
        while calls.recv().unwrap() != Call::Queue(0) {}
        ring.publish(0);
        driver.kick(1);
        std::thread::scope(|scope| {
            scope.spawn(|| end(&driver));
            go_on.send(()).unwrap();
        });
        assert_eq!(ring.take_used(), Some((0, 7)));
    }
}

#[test]
fn a_failure_over_the_last_kick_before_a_reset_is_told_and_the_next_driver_served() {
    let (driver, _calls, script) = probe(&[8]);
    for _ in 0..50 {
        let mut ring = Ring::new(&driver.memory, 0x1000, 8, false);
        driver.start(Driver::VERSION_1, &[&ring]);
        script.lock().unwrap().push_back(Script::Fail);
        driver.kick(0);
        assert_eq!(driver.set_status(0), 0);
        assert!(matches!(
            driver.wait_event().kind,
            DeviceEventKind::Failed(VirtioError::Device(_))
        ));
        driver.start(Driver::VERSION_1, &[&ring]);
        ring.publish(0);
        driver.kick(0);
        driver.wait_used(&mut ring);
    }
}

#[test]
fn a_panic_over_the_last_kick_does_not_get_out_of_a_stop() {
    for _ in 0..50 {
        let (driver, calls, script) = probe(&[8]);
        let ring = Ring::new(&driver.memory, 0x1000, 8, false);
        driver.start(Driver::VERSION_1, &[&ring]);
        script.lock().unwrap().push_back(Script::Panic);
        driver.kick(0);
        driver.transport.stop();
        // The device is gone.
        while calls.recv().is_ok() {}
    }
}

#[test]
fn nothing_is_touched_after_a_reset_in_the_middle_of_work() {
    let (driver, _calls, _) = probe(&[16]);
    let storm = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while storm.load(Ordering::Relaxed) {
                driver.kick(0);
            }
        });
        for _ in 0..200 {
            let mut ring = Ring::new(&driver.memory, 0x1000, 16, false);
            driver.start(Driver::VERSION_1, &[&ring]);
            for head in 0..16 {
                ring.publish(head);
            }
            driver.set_status(0);
            // The driver has its memory back: what it writes there now stays.
            let mut ring = Ring::new(&driver.memory, 0x1000, 16, false);
            ring.set_avail_idx(16);
            for _ in 0..100 {
                driver.kick(0);
                assert_eq!(ring.used_idx(), 0);
            }
        }
        storm.store(false, Ordering::Relaxed);
    });
}

#[test]
fn a_driver_that_never_stops_adding_buffers_cannot_hold_a_stop() {
    let (driver, _calls, _) = probe(&[16]);
    let mut ring = Ring::new(&driver.memory, 0x1000, 16, false);
    driver.start(Driver::VERSION_1, &[&ring]);
    let storm = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let ring = &mut ring;
        let (driver, storm) = (&driver, &storm);
        let (started, wait) = channel();
        scope.spawn(move || {
            let mut sent = 0_u64;
            while storm.load(Ordering::Relaxed) {
                // As fast as the device takes them, so that there always are some.
                if ring.take_used().is_some() || sent < 16 {
                    ring.publish((sent % 16) as u16);
                    driver.kick(0);
                    sent += 1;
                }
                if sent == 1000 {
                    let _ = started.send(());
                }
            }
        });
        wait.recv().unwrap();
        driver.transport.stop();
        storm.store(false, Ordering::Relaxed);
    });
}

#[test]
fn a_stopped_device_leaves_no_thread_and_refuses_drivers() {
    let (driver, calls, _) = probe(&[8]);
    let mut ring = Ring::new(&driver.memory, 0x1000, 8, false);
    driver.start(Driver::VERSION_1, &[&ring]);
    driver.transport.stop();
    // The device itself is gone, and with it the other end of what it reports to.
    while calls.recv().is_ok() {}
    ring.publish(0);
    driver.kick(0);
    driver.negotiate(Driver::VERSION_1);
    driver.set_queue(0, 8, ring.addresses());
    assert_ne!(
        driver.add_status(Driver::DRIVER_OK) & Driver::NEEDS_RESET,
        0
    );
}
