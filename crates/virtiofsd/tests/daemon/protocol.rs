//! What the daemon offers of the vhost-user protocol, and that it does what it offers.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

use super::driver::{Driver, INPUT, NEXT, OUTPUT, Outcome, WRITE, connect};
use super::fuse::{GETATTR, Mounted, ROOT, me, message, u32_at};
use super::guest::{mount, mounted_with};
use super::process::Daemon;

/// VERSION_1, PROTOCOL_FEATURES, INDIRECT_DESC.
const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 28;
const PAGE: u64 = 4096;

fn getattr() -> Vec<u8> {
    message(GETATTR, ROOT, me(), &[0; 16])
}

pub fn what_is_offered_is_what_something_is_done_with() {
    let offered = |args: &[&str]| {
        let daemon = Daemon::start(args);
        connect(&daemon.socket(), 2, false).protocol
    };
    let always = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::LOG_SHMFD
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::RESET_DEVICE
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | VhostUserProtocolFeatures::DEVICE_STATE;
    assert_eq!(offered(&[]), always);
    let tagged = offered(&["--tag", "work"]);
    assert_eq!(tagged, always | VhostUserProtocolFeatures::CONFIG);
    // Who sends a channel all the same is refused it, and the next one served.
    let daemon = Daemon::start(&["--reconnect"]);
    let mut driver = connect(&daemon.socket(), 2, false);
    let (channel, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(driver.frontend.set_backend_request_fd(&channel).is_err());
    drop(driver);
    drop(mount(&daemon));
}

pub fn a_device_that_is_reset_begins_anew_with_the_same_connection() {
    let (daemon, mut mounted) = mounted_with(&[]);
    let server = daemon.server();
    let file = mounted.lookup(ROOT, "file").unwrap();
    let handle = mounted.open(file.node, libc::O_RDONLY).unwrap();
    let mut driver = mounted.driver;
    driver.stop_rings();
    driver.frontend.reset_device().unwrap();
    driver.frontend.set_features(FEATURES).unwrap();
    driver.start_rings(2);
    let mut mounted = Mounted::mount(driver);
    // What the driver before had is gone.
    let old = mounted.read(file.node, handle, 0, 9).unwrap_err();
    assert_eq!(old, libc::EBADF);
    let file = mounted.lookup(ROOT, "file").unwrap();
    let handle = mounted.open(file.node, libc::O_RDONLY).unwrap();
    assert_eq!(mounted.read(file.node, handle, 0, 9).unwrap(), b"content");
    assert_eq!(daemon.server(), server);
}

pub fn a_device_that_is_reset_while_its_rings_run_serves_none_until_they_go_on() {
    let (_daemon, mounted) = mounted_with(&[]);
    let mut driver = mounted.driver;
    driver.frontend.reset_device().unwrap();
    // INIT was the first.
    driver.write(INPUT, &getattr());
    let [descriptors, ..] = Driver::parts(1);
    driver.put(descriptors, (INPUT, 56, NEXT, 1));
    driver.put(descriptors + 16, (OUTPUT, 4096, WRITE, 0));
    driver.offer(1, 0);
    driver.kick(1);
    driver.frontend.get_max_mem_slots().unwrap();
    let [_, _, used] = Driver::parts(1);
    assert_eq!(driver.read(used + 2, 2), 1u16.to_le_bytes());
    driver.frontend.set_features(FEATURES).unwrap();
    driver.frontend.set_vring_enable(1, true).unwrap();
    assert!(matches!(driver.outcome(1), Outcome::Used(_)));
}

/// Memory of the guest's beyond what it began with.
struct More {
    file: File,
    region: VhostUserMemoryRegionInfo,
}

impl More {
    fn new(guest_phys_addr: u64) -> Self {
        // SAFETY: a literal name and a constant.
        let number = unsafe { libc::memfd_create(c"more".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(number >= 0);
        // SAFETY: the kernel has just made it.
        let file = unsafe { File::from_raw_fd(number) };
        file.set_len(2 * PAGE).unwrap();
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr,
            memory_size: 2 * PAGE,
            userspace_addr: 1 << 46 | guest_phys_addr,
            mmap_offset: 0,
            mmap_handle: file.as_raw_fd(),
        };
        Self { file, region }
    }

    /// Has a request read from the first page, and answered in the second.
    fn serves(&self, driver: &mut Driver) -> Outcome {
        self.file.write_all_at(&getattr(), 0).unwrap();
        self.file.write_all_at(&[0xff; 16], PAGE).unwrap();
        let at = self.region.guest_phys_addr;
        driver.submit(1, &[(at, 56, NEXT, 1), (at + PAGE, 4096, WRITE, 0)])
    }

    fn assert_serves(&self, driver: &mut Driver) {
        let outcome = self.serves(driver);
        let mut header = [0; 16];
        self.file.read_exact_at(&mut header, PAGE).unwrap();
        assert_eq!(outcome, Outcome::Used(u32_at(&header, 0)));
        assert_eq!(u32_at(&header, 4), 0);
    }
}

pub fn memory_is_added_and_taken_away_while_the_guest_runs() {
    let daemon = Daemon::start(&["--reconnect"]);
    let mut driver = mount(&daemon).driver;
    let more = More::new(1 << 32);
    driver.frontend.add_mem_region(&more.region).unwrap();
    more.assert_serves(&mut driver);
    driver.frontend.remove_mem_region(&more.region).unwrap();
    assert_eq!(more.serves(&mut driver), Outcome::Failed);
    // The rest of memory is as it was, and what was taken away may come again.
    driver.frontend.add_mem_region(&more.region).unwrap();
    driver.stop_rings();
    driver.start_rings(2);
    more.assert_serves(&mut driver);
    assert!(driver.request(1, &getattr(), 4096).len() > 16);
    // Twice the same is none, nor is what is not there.
    assert!(driver.frontend.add_mem_region(&more.region).is_err());
    drop(driver);
    let mut driver = mount(&daemon).driver;
    assert!(driver.frontend.remove_mem_region(&more.region).is_err());
    drop(driver);
    drop(mount(&daemon));
}

pub fn there_is_room_for_as_many_pieces_of_memory_as_are_told() {
    // With hardly more descriptors than they take.
    let daemon = Daemon::start(&["--rlimit-nofile", "700"]);
    let mut driver = mount(&daemon).driver;
    let slots = driver.frontend.get_max_mem_slots().unwrap();
    assert_eq!(slots, 509);
    let mut last = None;
    for index in 1..slots {
        let more = More::new((1 << 32) + index * (1 << 20));
        driver.frontend.add_mem_region(&more.region).unwrap();
        last = Some(more);
    }
    last.unwrap().assert_serves(&mut driver);
}
