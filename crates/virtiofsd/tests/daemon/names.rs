//! Names that lead up.

use super::driver::Driver;
use super::fuse::{Mounted, ROOT};
use super::process::{Daemon, is_root};

pub fn the_folder_above_cannot_be_looked_up_in_any_sandbox() {
    for sandbox in ["namespace", "chroot", "none"] {
        if sandbox == "chroot" && !is_root() {
            continue;
        }
        let daemon = Daemon::start(&["--sandbox", sandbox]);
        std::fs::create_dir(daemon.share().join("folder")).unwrap();
        let mut mounted = Mounted::mount(Driver::start(&daemon.socket()));
        let folder = mounted.lookup(ROOT, "folder").unwrap();
        for node in [ROOT, folder.node] {
            let error = mounted.lookup(node, "..").unwrap_err();
            assert_eq!(error, libc::EINVAL, "{sandbox}");
        }
        assert_eq!(mounted.lookup(folder.node, ".").unwrap().node, folder.node);
    }
}
