//! What the registers answer, and what they do not let a driver do.

use std::sync::mpsc::{Receiver, channel};

use microvm_vmm::bus::BusDevice;
use microvm_vmm::virtio::{
    DeviceEventKind, QueueState, Transport, VirtioDeviceSource, VirtioError,
};
use virtio_bindings::virtio_mmio as register;

use crate::support::{Call, Driver, MEMORY, Probe, Ring, Script, memory};

fn probe_with(sizes: &[u16], features: u64) -> (Driver, Receiver<Call>) {
    let (calls, receiver) = channel();
    let device = Probe::new(calls, sizes).with_features(features);
    let source = VirtioDeviceSource::Hosted(Box::new(device));
    (Driver::of(memory(), source), receiver)
}

fn probe() -> (Driver, Receiver<Call>) {
    probe_with(&[8, 16], Probe::FEATURES)
}

#[test]
fn identity_registers_read_as_the_specification_says() {
    let (driver, _) = probe();
    assert_eq!(driver.read(0x000), u32::from_le_bytes(*b"virt"));
    assert_eq!(driver.read(0x004), 2);
    assert_eq!(driver.read(0x008), Probe::TYPE);
    assert_eq!(driver.status(), 0);
    assert_eq!(driver.read(register::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

#[test]
fn shared_memory_registers_say_that_there_is_none() {
    let (driver, _) = probe();
    for region in [0, 1, u32::MAX] {
        driver.write(register::VIRTIO_MMIO_SHM_SEL, region);
        assert_eq!(driver.read(register::VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX);
        assert_eq!(driver.read(register::VIRTIO_MMIO_SHM_LEN_HIGH), u32::MAX);
        assert_eq!(driver.read(register::VIRTIO_MMIO_SHM_BASE_LOW), u32::MAX);
        assert_eq!(driver.read(register::VIRTIO_MMIO_SHM_BASE_HIGH), u32::MAX);
    }
}

#[test]
fn features_of_the_transport_that_nobody_implements_are_not_offered() {
    let (driver, _) = probe_with(&[8], u64::MAX);
    let withheld = [26, 30, 33, 34, 37, 38, 39, 40, 41];
    let offered = driver.offered_features();
    for bit in withheld {
        assert_eq!(offered & 1 << bit, 0, "bit {bit}");
    }
    assert_ne!(offered & Driver::VERSION_1, 0);
    driver.write(register::VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
    assert_eq!(driver.read(register::VIRTIO_MMIO_DEVICE_FEATURES), 0);
}

#[test]
fn features_ok_is_refused_without_version_1() {
    let (driver, _) = probe();
    let status = driver.negotiate(Probe::FEATURES);
    assert_eq!(status, Driver::ACKNOWLEDGE | Driver::DRIVER);
}

#[test]
fn features_ok_is_refused_for_features_that_were_not_offered() {
    let (driver, _) = probe();
    let status = driver.negotiate(Driver::VERSION_1 | 1 << 6);
    assert_eq!(status, Driver::ACKNOWLEDGE | Driver::DRIVER);

    driver.set_status(0);
    driver.set_status(Driver::ACKNOWLEDGE | Driver::DRIVER);
    driver.take_features(Driver::VERSION_1);
    driver.write(register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 2);
    driver.write(register::VIRTIO_MMIO_DRIVER_FEATURES, 1);
    assert_eq!(
        driver.add_status(Driver::FEATURES_OK) & Driver::FEATURES_OK,
        0
    );
}

#[test]
fn features_cannot_change_after_features_ok() {
    let (driver, calls) = probe();
    driver.negotiate(Driver::VERSION_1);
    driver.take_features(Driver::VERSION_1 | 1 << 5);
    let ring = Ring::new(&driver.memory, 0x1000, 8, false);
    driver.set_queue(0, 8, ring.addresses());
    driver.add_status(Driver::DRIVER_OK);
    assert_eq!(calls.recv().unwrap(), Call::Reset);
    assert_eq!(calls.recv().unwrap(), Call::Features(Driver::VERSION_1));
}

#[test]
fn status_bits_come_on_in_their_order_only() {
    let (driver, _) = probe();
    assert_eq!(driver.set_status(Driver::DRIVER), 0);
    assert_eq!(driver.set_status(Driver::FEATURES_OK), 0);
    assert_eq!(driver.set_status(Driver::DRIVER_OK), 0);
    assert_eq!(
        driver.set_status(Driver::ACKNOWLEDGE | Driver::DRIVER_OK),
        Driver::ACKNOWLEDGE
    );
    driver.negotiate(Driver::VERSION_1);
    let before = driver.status();
    assert_eq!(before & Driver::FEATURES_OK, Driver::FEATURES_OK);
    assert_eq!(
        driver.set_status(Driver::ACKNOWLEDGE),
        before,
        "cleared bits"
    );
    assert_eq!(driver.set_status(before | 0x1f30), before, "unknown bits");
    let alone = driver.set_status(Driver::DRIVER_OK);
    assert_eq!(alone, before, "a new bit with the old ones cleared");
}

#[test]
fn a_driver_that_gave_up_gets_no_further() {
    let (driver, calls) = probe();
    driver.negotiate(Driver::VERSION_1);
    driver.add_status(Driver::FAILED);
    let status = driver.add_status(Driver::DRIVER_OK);
    assert_eq!(status & Driver::DRIVER_OK, 0);
    assert!(calls.try_iter().all(|call| call == Call::Reset));
}

#[test]
fn queue_registers_are_closed_outside_their_window() {
    let (driver, _) = probe();
    let closed = |driver: &Driver| {
        let before = driver.transport.state().queues;
        driver.set_queue(0, 4, [0x4000, 0x5000, 0x6000]);
        driver.write(register::VIRTIO_MMIO_QUEUE_READY, 0);
        assert_eq!(driver.transport.state().queues, before);
    };
    closed(&driver);
    driver.set_status(Driver::ACKNOWLEDGE | Driver::DRIVER);
    closed(&driver);
    let ring = Ring::new(&driver.memory, 0x1000, 8, false);
    driver.start(Driver::VERSION_1, &[&ring]);
    closed(&driver);
    driver.add_status(Driver::FAILED);
    closed(&driver);
}

#[test]
fn a_ready_queue_keeps_its_addresses() {
    let (driver, _) = probe();
    driver.negotiate(Driver::VERSION_1);
    driver.set_queue(0, 8, [0x1000, 0x2000, 0x3000]);
    let before = driver.transport.state().queues;
    driver.set_queue(0, 4, [0x4000, 0x5000, 0x6000]);
    assert_eq!(driver.transport.state().queues, before);
    driver.write(register::VIRTIO_MMIO_QUEUE_READY, 0);
    assert_eq!(driver.read(register::VIRTIO_MMIO_QUEUE_READY), 0);
    driver.set_queue(0, 4, [0x4000, 0x5000, 0x6000]);
    assert_ne!(driver.transport.state().queues, before);
}

#[test]
fn a_queue_that_is_not_there_reads_zero_and_takes_nothing() {
    let (driver, _) = probe();
    driver.negotiate(Driver::VERSION_1);
    let before = driver.transport.state().queues;
    for index in [2, 3, 0x1_0000, u32::MAX] {
        driver.set_queue(index, 8, [0x1000, 0x2000, 0x3000]);
        assert_eq!(driver.read(register::VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
        assert_eq!(driver.read(register::VIRTIO_MMIO_QUEUE_READY), 0);
    }
    assert_eq!(driver.transport.state().queues, before);
    driver.write(register::VIRTIO_MMIO_QUEUE_SEL, 1);
    assert_eq!(driver.read(register::VIRTIO_MMIO_QUEUE_NUM_MAX), 16);
}

/// A driver that says `DRIVER_OK` with such a queue is told that it has to reset the device, the
/// device never hears of it, and a proper set-up works afterwards.
fn assert_queue_is_refused(size: u32, addresses: [u64; 3]) {
    let (driver, calls) = probe();
    driver.negotiate(Driver::VERSION_1);
    driver.set_queue(0, size, addresses);
    let status = driver.add_status(Driver::DRIVER_OK);
    let case = format!("{size} {addresses:x?}");
    assert_ne!(status & Driver::NEEDS_RESET, 0, "{case}");
    assert_eq!(driver.wait_interrupt(), register::VIRTIO_MMIO_INT_CONFIG);
    let event = driver.wait_event();
    assert!(
        matches!(
            event.kind,
            DeviceEventKind::Failed(VirtioError::Ring { queue: 0, .. })
        ),
        "{case}: {event:?}"
    );
    driver.kick(0);
    assert!(calls.try_iter().all(|call| call == Call::Reset), "{case}");

    let mut ring = Ring::new(&driver.memory, 0x1000, 8, false);
    driver.start(Driver::VERSION_1, &[&ring]);
    ring.publish(0);
    driver.kick(0);
    assert_eq!(driver.wait_used(&mut ring), (0, 7));
}

#[test]
fn rings_that_cannot_be_used_are_refused() {
    let good = [0x1000, 0x2000, 0x3000];
    for size in [0, 3, 7, 16, 0x1_0008, u32::MAX] {
        assert_queue_is_refused(size, good);
    }
    for addresses in [
        [0x1008, 0x2000, 0x3000],
        [0x1000, 0x2001, 0x3000],
        [0x1000, 0x2000, 0x3002],
        [0x1000, 0, 0x3000],
        [MEMORY, 0x2000, 0x3000],
        [MEMORY - 16, 0x2000, 0x3000],
        [0x1000, MEMORY - 2, 0x3000],
        [0x1000, 0x2000, MEMORY - 4],
        [u64::MAX - 15, 0x2000, 0x3000],
        [0x1000, u64::MAX - 1, 0x3000],
        [0x1000, 0x2000, u64::MAX - 3],
        [0xd000_0000, 0x2000, 0x3000],
    ] {
        assert_queue_is_refused(8, addresses);
    }
}

#[test]
fn accesses_of_a_wrong_width_or_place_do_nothing() {
    let (driver, _) = probe();
    let before = driver.transport.state();
    for length in [0, 1, 2, 3, 5, 8] {
        let mut data = vec![0xaa; length];
        driver.transport.read(0, &mut data);
        assert!(data.iter().all(|byte| *byte == 0), "{length} bytes");
        driver.transport.write(0x70, &vec![1; length]);
    }
    for offset in [1, 2, 3, 0x71, 0x72] {
        let mut data = [0xaa; 4];
        driver.transport.read(offset, &mut data);
        assert_eq!(data, [0; 4]);
        driver.transport.write(offset, &[1; 4]);
    }
    for offset in [u64::MAX, u64::MAX - 3, 1 << 32, u64::from(u32::MAX)] {
        let mut data = [0xaa; 4];
        driver.transport.read(offset, &mut data);
        assert_eq!(data, [0; 4]);
        driver.transport.write(offset, &[1; 4]);
    }
    assert_eq!(driver.transport.state(), before);
}

#[test]
fn the_configuration_space_takes_all_widths_and_ends_in_zeros() {
    let (driver, calls) = probe();
    let read = |offset: u64, length: usize| {
        let mut data = vec![0xaa; length];
        driver.transport.read(0x100 + offset, &mut data);
        data
    };
    assert_eq!(read(0, 1), [1]);
    assert_eq!(read(1, 2), [2, 3]);
    assert_eq!(read(0, 8), [1, 2, 3, 4, 5, 6, 0, 0]);
    assert_eq!(read(4, 4), [5, 6, 0, 0]);
    assert_eq!(read(0xff, 1), [0]);
    driver.transport.write(0x102, &[9]);
    assert!(calls.try_recv().is_err(), "no driver is there yet");
    driver.set_status(Driver::ACKNOWLEDGE | Driver::DRIVER);
    driver.transport.write(0x102, &[9]);
    assert_eq!(calls.recv().unwrap(), Call::WriteConfig(2, vec![9]));
}

#[test]
fn a_changed_configuration_raises_the_generation_and_an_interrupt() {
    let (calls, receiver) = channel();
    let device = Probe::new(calls, &[8]);
    let script = device.script();
    let driver = Driver::of(memory(), VirtioDeviceSource::Hosted(Box::new(device)));
    let ring = Ring::new(&driver.memory, 0x1000, 8, false);
    let before = driver.read(register::VIRTIO_MMIO_CONFIG_GENERATION);
    script.lock().unwrap().push_back(Script::ChangeConfig);
    driver.start(Driver::VERSION_1, &[&ring]);
    while receiver.recv().unwrap() != Call::Queue(0) {}
    let mut status = 0;
    while status & register::VIRTIO_MMIO_INT_CONFIG == 0 {
        status |= driver.wait_interrupt();
    }
    assert_ne!(driver.read(register::VIRTIO_MMIO_CONFIG_GENERATION), before);
}

#[test]
fn reset_returns_every_register_to_its_start() {
    let (driver, calls) = probe();
    let start = driver.transport.state();
    let ring = Ring::new(&driver.memory, 0x1000, 8, false);
    driver.start(Driver::VERSION_1, &[&ring]);
    driver.set_status(0);
    assert_eq!(driver.transport.state(), start);
    assert_eq!(calls.try_iter().last(), Some(Call::Reset));
    let expected = [8, 16].map(|max_size| QueueState {
        max_size,
        ..QueueState::default()
    });
    assert_eq!(start.queues, expected);
}

#[test]
fn a_kick_before_the_driver_is_ready_means_nothing() {
    let (driver, calls) = probe();
    driver.kick(0);
    driver.kick(77);
    driver.negotiate(Driver::VERSION_1);
    driver.kick(0);
    driver.kick(u32::MAX);
    assert!(calls.try_iter().all(|call| call == Call::Reset));
}

#[test]
fn impossible_queue_layouts_are_refused_at_plug() {
    for sizes in [vec![], vec![8, 3], vec![0]] {
        let (calls, _receiver) = channel();
        let device = Probe::new(calls, &sizes);
        let source = VirtioDeviceSource::Hosted(Box::new(device));
        assert!(matches!(
            Driver::try_of(memory(), source).err(),
            Some(VirtioError::QueueLayout { .. })
        ));
    }
}
