//! A front end that cuts off memory after it has told of it.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use vhost::VhostBackend;
use vhost::VhostUserDirtyLogRegion;
use vm_memory::GuestMemory;
use vm_memory::GuestMemoryRegion;

use super::driver::{Driver, INPUT, MEMORY, NEXT, OUTPUT, Outcome, WRITE};
use super::fuse::{GETATTR, ROOT, me, message};
use super::guest::mount;
use super::process::Daemon;

/// The daemon says so, is the same process, and takes the next guest.
fn assert_goes_on(mut daemon: Daemon, server: u32) {
    daemon.expect_log("the front end has cut off memory");
    daemon.expect_log("Waiting for vhost-user socket connection");
    assert_eq!(daemon.server(), server);
    let mut mounted = mount(&daemon);
    assert_eq!(mounted.lookup(ROOT, "none").unwrap_err(), libc::ENOENT);
}

fn cut(driver: &Driver, size: u64) {
    let region = driver.memory.iter().next().unwrap();
    region.file_offset().unwrap().file().set_len(size).unwrap();
}

pub fn a_buffer_that_is_cut_off_takes_its_ring_out_of_service_and_nothing_else_ends() {
    for args in [&[][..], &["--thread-pool-size=2"], &["--sandbox=none"]] {
        let daemon = Daemon::start(&[&["--reconnect"], args].concat());
        let server = daemon.server();
        let mut driver = mount(&daemon).driver;
        cut(&driver, OUTPUT);
        driver.write(INPUT, &message(GETATTR, ROOT, me(), &[0; 16]));
        let chain = [(INPUT, 56, NEXT, 1), (OUTPUT, 4096, WRITE, 0)];
        assert_eq!(driver.submit(1, &chain), Outcome::Failed, "{args:?}");
        // So is the other ring, when it is used: it may have been cut too.
        assert_eq!(driver.submit(0, &chain), Outcome::Failed, "{args:?}");
        drop(driver);
        assert_goes_on(daemon, server);
    }
}

pub fn rings_that_are_cut_off_go_out_of_service_and_nothing_else_ends() {
    let daemon = Daemon::start(&["--reconnect"]);
    let server = daemon.server();
    let driver = mount(&daemon).driver;
    cut(&driver, 0);
    driver.kick(1);
    driver.wait_for_failure(1);
    drop(driver);
    assert_goes_on(daemon, server);
}

pub fn a_log_of_writes_that_is_cut_off_ends_nothing_else() {
    let daemon = Daemon::start(&["--reconnect"]);
    let server = daemon.server();
    let mut mounted = mount(&daemon);
    // SAFETY: a literal name and a constant.
    let number = unsafe { libc::memfd_create(c"log".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(number >= 0);
    // SAFETY: the kernel has just made it.
    let log = unsafe { File::from_raw_fd(number) };
    let mmap_size = MEMORY / 4096 / 8;
    log.set_len(mmap_size).unwrap();
    let region = VhostUserDirtyLogRegion {
        mmap_size,
        mmap_offset: 0,
        mmap_handle: log.as_raw_fd(),
    };
    let frontend = &mut mounted.driver.frontend;
    frontend.set_log_base(0, Some(region)).unwrap();
    frontend
        .set_features(1 << 32 | 1 << 30 | 1 << 28 | 1 << 26)
        .unwrap();
    mounted.lookup(ROOT, "none").unwrap_err();
    log.set_len(0).unwrap();
    let driver = &mut mounted.driver;
    driver.write(INPUT, &message(GETATTR, ROOT, me(), &[0; 16]));
    let chain = [(INPUT, 56, NEXT, 1), (OUTPUT, 4096, WRITE, 0)];
    assert_eq!(driver.submit(1, &chain), Outcome::Failed);
    drop(mounted);
    assert_goes_on(daemon, server);
}

pub fn sigbus_of_anyone_elses_still_ends_the_daemon() {
    let mut daemon = Daemon::start(&["--sandbox", "none"]);
    super::process::send(daemon.server(), libc::SIGBUS);
    assert_eq!(daemon.wait().code(), Some(128 + libc::SIGBUS));
}
