//! What the options of a state transfer change.

use std::io::Write;
use std::path::Path;

use microvm_test_support::threads_of;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostTransferStateDirection;

use super::driver::Driver;
use super::fuse::{Mounted, ROOT};
use super::guest::mount;
use super::process::Daemon;
use super::state::{begin, save};

/// What a guest has open on its way to another daemon, which serves the same folder.
struct Transfer {
    source: Daemon,
    target: Daemon,
    mounted: Mounted,
    node: u64,
    handle: u64,
    /// Whether the target took the state.
    taken: bool,
}

impl Transfer {
    /// Transfers a guest that has `file` open. `prepared` runs when the source knows its files by name, `saved` when the
    /// state is on its way.
    fn run(
        [source, target]: [&[&str]; 2],
        prepared: impl FnOnce(&Path),
        saved: impl FnOnce(&Path),
    ) -> Self {
        let source = Daemon::start(source);
        std::fs::write(source.share().join("file"), "first").unwrap();
        std::fs::write(source.share().join("other"), "other").unwrap();
        let mut mounted = mount(&source);
        let node = mounted.lookup(ROOT, "file").unwrap().node;
        let handle = mounted.open(node, libc::O_RDONLY).unwrap();
        let before = threads(&source);
        let announced = 1 << 32 | 1 << 30 | 1 << 28 | 1 << 26;
        mounted.driver.frontend.set_features(announced).unwrap();
        // Nothing tells of the end of the thread that collects names.
        while threads(&source) > before {
            std::thread::yield_now();
        }
        prepared(&source.share());
        for ring in 0..2 {
            let frontend = &mut mounted.driver.frontend;
            frontend.set_vring_enable(ring, false).unwrap();
        }
        let state = save(&mut mounted.driver);
        saved(&source.share());

        let folder = tempfile::tempdir().unwrap();
        let target = Daemon::start_sharing(folder, &source.share(), target, |_| ());
        let mut driver = Driver::start(&target.socket());
        let (reader, mut writer) = std::io::pipe().unwrap();
        let direction = VhostTransferStateDirection::LOAD;
        begin(&mut driver, direction, reader.into());
        writer.write_all(&state).unwrap();
        drop(writer);
        let taken = driver.frontend.check_device_state().is_ok();
        mounted.driver = driver;
        Self {
            source,
            target,
            mounted,
            node,
            handle,
            taken,
        }
    }

    fn read(&mut self) -> Result<Vec<u8>, i32> {
        self.mounted.read(self.node, self.handle, 0, 64)
    }
}

fn threads(daemon: &Daemon) -> usize {
    threads_of(daemon.server()).count()
}

fn replace(share: &Path) {
    std::fs::write(share.join("new"), "second").unwrap();
    std::fs::rename(share.join("new"), share.join("file")).unwrap();
}

fn remove(share: &Path) {
    std::fs::remove_file(share.join("file")).unwrap();
}

pub fn another_file_of_the_same_name_is_noticed_where_files_are_verified() {
    let mut trusting = Transfer::run([&[], &[]], |_| (), replace);
    assert!(trusting.taken);
    assert_eq!(trusting.read().unwrap(), b"second");

    let verifying = ["--migration-verify-handles"];
    let mut kept = Transfer::run([&verifying, &[]], |_| (), |_| ());
    assert!(kept.taken);
    assert_eq!(kept.read().unwrap(), b"first");

    let mut replaced = Transfer::run([&verifying, &[]], |_| (), replace);
    assert!(!replaced.taken);
    replaced.target.expect_log("Failed to load state");
}

pub fn a_file_that_is_not_found_ends_the_transfer_or_is_an_error_of_the_guests() {
    let mut aborted = Transfer::run([&[], &["--migration-on-error", "abort"]], |_| (), remove);
    assert!(!aborted.taken);
    aborted.target.expect_log("Failed to load state");

    let lenient = ["--migration-on-error", "guest-error"];
    let mut lacking = Transfer::run([&[], &lenient], |_| (), remove);
    assert!(lacking.taken);
    assert_eq!(lacking.read().unwrap_err(), libc::EIO);
    // Its other files are as they were.
    let other = lacking.mounted.lookup(ROOT, "other").unwrap();
    let handle = lacking.mounted.open(other.node, libc::O_RDONLY).unwrap();
    let read = lacking.mounted.read(other.node, handle, 0, 9).unwrap();
    assert_eq!(read, b"other");
}

pub fn a_file_that_is_renamed_meanwhile_is_found_where_paths_are_confirmed() {
    let rename = |share: &Path| {
        std::fs::rename(share.join("file"), share.join("renamed")).unwrap();
    };
    let mut old = Transfer::run([&[], &[]], rename, |_| ());
    assert!(!old.taken);
    old.target.expect_log("Failed to load state");

    let confirming = ["--migration-confirm-paths"];
    let mut new = Transfer::run([&confirming, &[]], rename, |_| ());
    assert!(new.taken, "{}", new.source.log);
    assert_eq!(new.read().unwrap(), b"first");
}
