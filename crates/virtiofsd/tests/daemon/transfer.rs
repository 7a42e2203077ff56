//! State on its way when its front end goes.

use std::io::{Write, pipe};
use std::os::fd::AsRawFd;

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostTransferStateDirection;

use super::driver::Driver;
use super::fuse::{Mounted, ROOT};
use super::process::Daemon;
use super::state::{begin, save};

/// A state with one file, found by its name.
fn saved(daemon: &Daemon) -> Vec<u8> {
    let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
    mounted.lookup(ROOT, "file").unwrap();
    save(&mut mounted.driver)
}

pub fn a_state_that_comes_after_its_front_end_has_gone_is_not_applied() {
    let daemon = Daemon::start(&["--reconnect"]);
    std::fs::write(daemon.share().join("file"), "").unwrap();
    let state = saved(&daemon);
    let mut old = Driver::start(&daemon.socket());
    let (reader, mut writer) = pipe().unwrap();
    begin(&mut old, VhostTransferStateDirection::LOAD, reader.into());
    drop(old);

    let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
    std::fs::write(daemon.share().join("other"), "other").unwrap();
    let other = mounted.lookup(ROOT, "other").unwrap();
    // Nobody may read it any more.
    let _ = writer.write_all(&state);
    drop(writer);
    // Its own inodes stay what they are, however often it asks.
    for _ in 0..500 {
        let handle = mounted.open(other.node, libc::O_RDONLY).unwrap();
        let read = mounted.read(other.node, handle, 0, 99).unwrap();
        assert_eq!(read, b"other");
    }
}

pub fn the_outcome_of_a_transfer_whose_other_end_stays_open_is_not_waited_for_long() {
    let mut daemon = Daemon::start(&["--reconnect"]);
    let mut driver = Driver::start(&daemon.socket());
    let (reader, mut writer) = pipe().unwrap();
    begin(
        &mut driver,
        VhostTransferStateDirection::LOAD,
        reader.into(),
    );
    writer.write_all(b"this is a beginning").unwrap();
    assert!(driver.frontend.check_device_state().is_err());
    drop((writer, driver));
    daemon.expect_log("whose other end is still open");

    // More than there is room for.
    let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
    let names = (0..50).map(|index| format!("{index}-{}", "x".repeat(200)));
    for name in names {
        std::fs::write(daemon.share().join(&name), "").unwrap();
        mounted.lookup(ROOT, &name).unwrap();
    }
    std::fs::write(daemon.share().join("file"), "").unwrap();
    let (reader, writer) = pipe().unwrap();
    // SAFETY: takes numbers only.
    let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert_eq!(size, 4096);
    let driver = &mut mounted.driver;
    begin(driver, VhostTransferStateDirection::SAVE, writer.into());
    assert!(driver.frontend.check_device_state().is_err());
    drop(reader);
    daemon.expect_log("whose other end is still open");
    mounted.lookup(ROOT, "file").unwrap();
}

pub fn a_transfer_ends_when_its_front_end_goes() {
    let daemon = Daemon::start(&["--reconnect"]);
    let mut driver = Driver::start(&daemon.socket());
    let (reader, mut writer) = pipe().unwrap();
    begin(
        &mut driver,
        VhostTransferStateDirection::LOAD,
        reader.into(),
    );
    drop(driver);
    // Its end is closed then, which is all that tells of it.
    while writer.write_all(&[0]).is_ok() {
        std::thread::yield_now();
    }
}
