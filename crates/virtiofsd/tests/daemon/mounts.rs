//! File systems for a test.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use microvm_test_support::skip;

use super::process::require_root;

/// A file system in memory, which is gone when this is dropped.
pub struct Tmpfs(CString);

impl Tmpfs {
    /// Mounts one; skips the test where that is not possible.
    pub fn mount(folder: &Path, options: &CStr) -> Self {
        require_root("mounting");
        let target = CString::new(folder.as_os_str().as_bytes()).unwrap();
        let kind = c"tmpfs".as_ptr();
        // SAFETY: strings that live through the call.
        let mounted =
            unsafe { libc::mount(kind, target.as_ptr(), kind, 0, options.as_ptr().cast()) };
        if mounted != 0 {
            skip(format!(
                "no mounts here: {}",
                std::io::Error::last_os_error()
            ));
        }
        Self(target)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // SAFETY: a string that lives through the call.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}
