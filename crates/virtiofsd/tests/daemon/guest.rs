//! A guest of a daemon.

use super::driver::Driver;
use super::fuse::Mounted;
use super::process::Daemon;

/// Connects to a daemon and mounts what it shares.
pub fn mount(daemon: &Daemon) -> Mounted {
    Mounted::mount(Driver::start(&daemon.socket()))
}

/// A daemon with these options and one file, mounted.
pub fn mounted_with(args: &[&str]) -> (Daemon, Mounted) {
    let daemon = Daemon::start(args);
    std::fs::write(daemon.share().join("file"), "content").unwrap();
    let mounted = mount(&daemon);
    (daemon, mounted)
}
