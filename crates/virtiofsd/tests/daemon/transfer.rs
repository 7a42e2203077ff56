//! State on its way when its front end goes.

use std::io::{Write, pipe};
use std::os::fd::AsRawFd;

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostTransferStateDirection, VhostTransferStatePhase};

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

/// Features of a driver, and with them the one that announces a transfer: `VHOST_F_LOG_ALL`.
const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 28;
const LOG_ALL: u64 = 1 << 26;
/// What the daemon says where it has nothing prepared.
const LATE: &str = "did not announce the migration";

/// A daemon and its guest, which knows some files.
fn with_files() -> (Daemon, Mounted) {
    let daemon = Daemon::start(&["--reconnect"]);
    let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
    for index in 0..200 {
        let name = index.to_string();
        std::fs::write(daemon.share().join(&name), &name).unwrap();
        mounted.lookup(ROOT, &name).unwrap();
    }
    (daemon, mounted)
}

pub fn a_transfer_that_is_given_up_is_prepared_anew_when_it_is_announced_again() {
    let (mut daemon, mut mounted) = with_files();
    let frontend = &mounted.driver.frontend;
    // Prepared, given up, and saved after all.
    frontend.set_features(FEATURES | LOG_ALL).unwrap();
    frontend.set_features(FEATURES).unwrap();
    let late = save(&mut mounted.driver);
    daemon.expect_log(LATE);
    // Given up once and then announced again: nothing is late any more, and it is the same state.
    let frontend = &mounted.driver.frontend;
    frontend.set_features(FEATURES | LOG_ALL).unwrap();
    frontend.set_features(FEATURES).unwrap();
    frontend.set_features(FEATURES | LOG_ALL).unwrap();
    let before = daemon.log.len();
    let announced = save(&mut mounted.driver);
    assert_eq!(announced.len(), late.len());
    drop(mounted);
    daemon.expect_log("Client disconnected");
    assert!(!daemon.log[before..].contains(LATE), "{}", daemon.log);
}

pub fn a_state_that_comes_ends_the_preparation_of_one_that_was_to_go() {
    let (mut daemon, mut mounted) = with_files();
    let driver = &mut mounted.driver;
    driver.frontend.set_features(FEATURES | LOG_ALL).unwrap();
    let (reader, mut writer) = pipe().unwrap();
    begin(driver, VhostTransferStateDirection::LOAD, reader.into());
    daemon.expect_log("Cancelling serialization preparation because of incoming migration");
    writer.write_all(b"this is no state").unwrap();
    drop(writer);
    assert!(driver.frontend.check_device_state().is_err());
    // What was prepared is not there any more; the files are.
    let state = save(driver);
    assert!(state.len() > 200);
    daemon.expect_log(LATE);
    mounted.lookup(ROOT, "7").unwrap();
}

pub fn a_second_transfer_is_refused_while_one_is_under_way_which_goes_on() {
    let (mut daemon, mut mounted) = with_files();
    let state = save(&mut mounted.driver);
    let driver = &mut mounted.driver;
    let (reader, mut writer) = pipe().unwrap();
    begin(driver, VhostTransferStateDirection::LOAD, reader.into());
    for direction in [
        VhostTransferStateDirection::LOAD,
        VhostTransferStateDirection::SAVE,
    ] {
        let (reader, other) = pipe().unwrap();
        let end = match direction {
            VhostTransferStateDirection::LOAD => reader.into(),
            VhostTransferStateDirection::SAVE => other.into(),
        };
        let stopped = VhostTransferStatePhase::STOPPED;
        let second = driver.frontend.set_device_state_fd(direction, stopped, end);
        assert!(second.is_err());
        daemon.expect_log("Failed to initiate state (de-)serialization: resource busy");
    }
    writer.write_all(&state).unwrap();
    drop(writer);
    driver.frontend.check_device_state().unwrap();
    // The first one's state is in force, and the next transfer possible.
    mounted.lookup(ROOT, "7").unwrap();
    assert_eq!(save(&mut mounted.driver).len(), state.len());
}
