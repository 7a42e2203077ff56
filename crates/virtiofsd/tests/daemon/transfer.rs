//! State on its way when its front end goes.

use std::io::{Write, pipe};

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
    writer.write_all(&state).unwrap();
    drop(writer);
    // Its own inodes stay what they are, however often it asks.
    for _ in 0..500 {
        let handle = mounted.open(other.node, libc::O_RDONLY).unwrap();
        let read = mounted.read(other.node, handle, 0, 99).unwrap();
        assert_eq!(read, b"other");
    }
}
