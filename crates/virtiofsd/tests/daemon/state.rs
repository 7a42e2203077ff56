//! The device's state from one daemon to another, and a front end that comes back.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use microvm_test_support::threads_of;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostTransferStateDirection, VhostTransferStatePhase};

use super::driver::Driver;
use super::fuse::{Mounted, ROOT};
use super::process::{Daemon, require_root};

pub fn save(driver: &mut Driver) -> Vec<u8> {
    let (mut reader, writer) = std::io::pipe().unwrap();
    begin(driver, VhostTransferStateDirection::SAVE, writer.into());
    let mut state = Vec::new();
    reader.read_to_end(&mut state).unwrap();
    driver.frontend.check_device_state().unwrap();
    state
}

pub fn begin(driver: &mut Driver, direction: VhostTransferStateDirection, end: OwnedFd) {
    let stopped = VhostTransferStatePhase::STOPPED;
    let back = driver.frontend.set_device_state_fd(direction, stopped, end);
    assert!(back.unwrap().is_none());
}

pub fn a_state_that_one_daemon_saved_goes_on_in_another_with_its_open_files() {
    // Only root opens by file handle.
    go_on_by("find-paths");
}

pub fn a_state_goes_on_by_file_handles() {
    require_root("opening by file handle");
    go_on_by("file-handles");
}

fn go_on_by(mode: &str) {
    let mut source = Daemon::start(&["--migration-mode", mode]);
    std::fs::create_dir(source.share().join("folder")).unwrap();
    std::fs::write(source.share().join("folder/file"), "still here").unwrap();
    let mut mounted = Mounted::mount(Driver::start(&source.socket()));
    let folder = mounted.lookup(ROOT, "folder").unwrap();
    let file = mounted.lookup(folder.node, "file").unwrap();
    let handle = mounted.open(file.node, libc::O_RDONLY).unwrap();
    if mode == "find-paths" {
        // The log of memory announces what follows, so that it is prepared.
        let announced = 1 << 32 | 1 << 30 | 1 << 28 | 1 << 26;
        mounted.driver.frontend.set_features(announced).unwrap();
    }
    for ring in 0..2 {
        mounted
            .driver
            .frontend
            .set_vring_enable(ring, false)
            .unwrap();
    }
    let state = save(&mut mounted.driver);
    assert!(!state.is_empty());
    if mode == "file-handles" {
        source.expect_log("did not announce the migration");
    }

    let folder = tempfile::tempdir().unwrap();
    let target = Daemon::start_sharing(folder, &source.share(), &[], |_| ());
    let mut driver = Driver::start(&target.socket());
    let (reader, mut writer) = std::io::pipe().unwrap();
    begin(
        &mut driver,
        VhostTransferStateDirection::LOAD,
        reader.into(),
    );
    writer.write_all(&state).unwrap();
    drop(writer);
    driver.frontend.check_device_state().unwrap();
    mounted.driver = driver;
    let read = mounted.read(file.node, handle, 0, 64).unwrap();
    assert_eq!(read, b"still here", "{mode}");
    // Its connection has ended with the old driver.
    assert!(source.wait().success());
    let late = source.log.contains("did not announce the migration");
    assert_eq!(late, mode == "file-handles", "{}", source.log);
}

pub fn a_state_that_is_none_is_refused_and_a_check_without_a_transfer_too() {
    let mut daemon = Daemon::start(&["--reconnect"]);
    let driver = Driver::start(&daemon.socket());
    assert!(driver.frontend.check_device_state().is_err());
    drop(driver);
    let mut driver = Driver::start(&daemon.socket());
    let (reader, mut writer) = std::io::pipe().unwrap();
    begin(
        &mut driver,
        VhostTransferStateDirection::LOAD,
        reader.into(),
    );
    writer
        .write_all(b"this is no state of a device at all")
        .unwrap();
    drop(writer);
    assert!(driver.frontend.check_device_state().is_err());
    drop(driver);
    daemon.expect_log("no migration has been done");
    daemon.expect_log("Failed to load state");
    // It takes guests as before.
    let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
    assert_eq!(mounted.lookup(ROOT, "none").unwrap_err(), libc::ENOENT);
}

pub fn a_front_end_that_comes_back_goes_on_and_a_new_guest_begins_anew() {
    let daemon = Daemon::start(&["--reconnect"]);
    std::fs::write(daemon.share().join("file"), "kept").unwrap();
    let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
    let file = mounted.lookup(ROOT, "file").unwrap();
    let handle = mounted.open(file.node, libc::O_RDONLY).unwrap();
    drop(mounted.driver);
    let mut mounted = Mounted {
        driver: Driver::start(&daemon.socket()),
        ..mounted
    };
    assert_eq!(mounted.read(file.node, handle, 0, 9).unwrap(), b"kept");
    drop(mounted.driver);
    let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
    let old = mounted.read(file.node, handle, 0, 9).unwrap_err();
    assert_eq!(old, libc::EBADF);
}

pub fn connections_leave_no_descriptor_and_no_thread_behind() {
    let daemon = Daemon::start(&["--reconnect", "--request-queues", "2"]);
    let count = || {
        let server = daemon.server();
        let descriptors = std::fs::read_dir(format!("/proc/{server}/fd")).unwrap();
        (descriptors.count(), threads_of(server).count())
    };
    let connect = || {
        let mut mounted = Mounted::mount(Driver::start_with(&daemon.socket(), 3, true));
        mounted.lookup(ROOT, "none").unwrap_err();
        // While a guest is there, so that the daemon is in the same state each time.
        count()
    };
    let first = connect();
    for _ in 0..20 {
        connect();
    }
    assert_eq!(connect(), first);
}
