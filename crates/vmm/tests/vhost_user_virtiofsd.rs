//! The vhost-user front end against a back end that others wrote: upstream's virtiofsd, driven
//! through the registers and rings as a guest's driver would. No KVM is needed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

#[path = "virtiofsd/fuse.rs"]
mod fuse;
#[path = "virtio/support/mod.rs"]
mod support;
#[path = "virtiofsd/upstream.rs"]
mod upstream;

use microvm_vmm::bus::BusDevice;
use microvm_vmm::virtio::{
    DeviceEventKind, PeerLoss, Transport, VhostUserDevice, VhostUserPeer, VirtioDeviceSource,
    VirtioError,
};

use fuse::Fuse;
use support::{Driver, Ring, WRITE, memory};
use upstream::Virtiofsd;

const FILE_SYSTEM: u32 = 26;

fn device(peer: VhostUserPeer) -> VhostUserDevice {
    VhostUserDevice {
        peer,
        device_type: FILE_SYSTEM,
        queues: 2,
        queue_size: 128,
        config: None,
    }
}

fn plug(daemon: &Virtiofsd) -> Driver {
    let device = device(VhostUserPeer::Socket(daemon.socket()));
    Driver::of(memory(), VirtioDeviceSource::VhostUser(device))
}

/// A daemon that shares a folder with the file `hello` of 12,345 bytes, and the driver's view.
macro_rules! with_virtiofsd {
    () => {
        match Virtiofsd::start() {
            Some(daemon) => {
                std::fs::write(daemon.folder().join("hello"), vec![b'x'; 12_345]).unwrap();
                let driver = plug(&daemon);
                (daemon, driver)
            }
            None => return,
        }
    };
}

#[test]
fn a_file_is_found_and_described() {
    let (_daemon, driver) = with_virtiofsd!();
    assert_eq!(driver.read(8), FILE_SYSTEM);
    let mut fuse = Fuse::start(&driver);
    let (major, minor) = fuse.init();
    assert_eq!(major, 7);
    assert!(minor >= 31, "FUSE 7.{minor}");
    let node = fuse.lookup("hello").unwrap();
    assert_eq!(fuse.file_size(node), 12_345);
    assert_eq!(fuse.lookup("nothing"), Err(-libc::ENOENT));
}

#[test]
fn the_configuration_space_is_the_back_end_s() {
    let (_daemon, driver) = with_virtiofsd!();
    let mut tag = [0; 36];
    driver.transport.read(0x100, &mut tag);
    assert_eq!(&tag[..6], b"share\0");
    let mut queues = [0; 4];
    driver.transport.read(0x100 + 36, &mut queues);
    assert_eq!(u32::from_le_bytes(queues), 1);
}

#[test]
fn a_configuration_space_that_is_given_goes_before_the_back_end_s() {
    let Some(daemon) = Virtiofsd::start() else {
        return;
    };
    let mut device = device(VhostUserPeer::Socket(daemon.socket()));
    device.config = Some(b"ours".to_vec());
    let driver = Driver::of(memory(), VirtioDeviceSource::VhostUser(device));
    let mut tag = [0xaa; 8];
    driver.transport.read(0x100, &mut tag);
    assert_eq!(&tag, b"ours\0\0\0\0");
}

#[test]
fn a_connected_descriptor_serves_as_well_as_a_path() {
    let Some(daemon) = Virtiofsd::start() else {
        return;
    };
    let socket = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let device = device(VhostUserPeer::Fd(socket.into()));
    let driver = Driver::of(memory(), VirtioDeviceSource::VhostUser(device));
    Fuse::start(&driver).init();
}

#[test]
fn more_queues_than_the_back_end_has_are_refused() {
    let Some(daemon) = Virtiofsd::start() else {
        return;
    };
    let mut device = device(VhostUserPeer::Socket(daemon.socket()));
    device.queues = 9;
    let refused = Driver::try_of(memory(), VirtioDeviceSource::VhostUser(device)).err();
    assert!(
        matches!(refused, Some(VirtioError::TooFewQueues { wanted: 9, .. })),
        "{refused:?}"
    );
}

#[test]
fn another_driver_can_follow_after_a_reset() {
    let (_daemon, driver) = with_virtiofsd!();
    for _ in 0..3 {
        let mut fuse = Fuse::start(&driver);
        fuse.init();
        assert!(fuse.lookup("hello").is_ok());
        assert_eq!(driver.set_status(0), 0);
    }
    assert!(driver.pending_event().is_none());
}

#[test]
fn requests_of_a_pause_are_answered_after_it() {
    let (_daemon, driver) = with_virtiofsd!();
    let mut fuse = Fuse::start(&driver);
    fuse.init();
    let node = fuse.lookup("hello").unwrap();
    for _ in 0..3 {
        driver.transport.pause().unwrap();
        let position = driver.transport.state().queues[1].position;
        assert_eq!(position.next_avail, fuse.requests());
        assert_eq!(position.next_used, fuse.requests());
        fuse.send_file_size(node);
        driver.transport.resume().unwrap();
        assert_eq!(fuse.receive_file_size(), 12_345);
    }
}

fn assert_lost(driver: &Driver) {
    let event = driver.wait_event();
    assert!(
        matches!(event.kind, DeviceEventKind::PeerLost(PeerLoss::Closed)),
        "{event:?}"
    );
    assert_eq!(event.device_type, FILE_SYSTEM);
    assert_ne!(driver.status() & Driver::NEEDS_RESET, 0);
}

#[test]
fn a_back_end_that_is_killed_in_use_is_reported_and_holds_nobody() {
    let (mut daemon, driver) = with_virtiofsd!();
    let mut fuse = Fuse::start(&driver);
    fuse.init();
    let node = fuse.lookup("hello").unwrap();
    fuse.send_file_size(node);
    daemon.kill();
    assert_lost(&driver);
    // The line was raised for the change of the status.
    while driver.wait_interrupt() & 2 == 0 {}
    assert_eq!(driver.negotiate(Driver::VERSION_1) & Driver::FEATURES_OK, 0);
    driver.transport.pause().unwrap();
    driver.transport.resume().unwrap();
    driver.transport.stop();
    assert!(driver.pending_event().is_none(), "one loss is one event");
}

#[test]
fn a_back_end_that_is_gone_before_the_driver_came_is_reported() {
    let (mut daemon, driver) = with_virtiofsd!();
    daemon.kill();
    assert_lost(&driver);
    assert_eq!(driver.negotiate(Driver::VERSION_1) & Driver::FEATURES_OK, 0);
}

#[test]
fn a_back_end_that_a_request_kills_is_reported() {
    let (_daemon, driver) = with_virtiofsd!();
    let mut fuse = Fuse::start(&driver);
    fuse.init();
    // Upstream ends its process for a buffer outside guest memory.
    let mut ring = Ring::new(&driver.memory, 0x3_0000, 8, false);
    driver.start(Driver::VERSION_1, &[&ring]);
    ring.describe(0, 1 << 40, 4096, WRITE, 0);
    ring.publish(0);
    driver.kick(0);
    assert_lost(&driver);
}

#[test]
fn stopping_a_device_ends_its_back_end_without_an_event() {
    let (mut daemon, driver) = with_virtiofsd!();
    Fuse::start(&driver).init();
    driver.transport.stop();
    daemon.wait();
    assert!(driver.pending_event().is_none());
}
