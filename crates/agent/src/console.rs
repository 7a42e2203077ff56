//! The agent's words on the guest's console, where a person looks when a guest does not come up.

use std::fmt;
use std::io::{self, Write};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use std::os::fd::{BorrowedFd, IntoRawFd};

/// Writes one line. A console that cannot be written is no reason to fail.
pub(crate) fn note(message: fmt::Arguments<'_>) {
    // One write for the whole line: the kernel's messages share the console.
    let line = format!("microvm-agent: {message}\n");
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Fills the numbers 0 to 2 where the kernel had no console to open for them.
///
/// Otherwise a pipe or socket would get such a number, and a command would inherit it as a standard stream.
pub(crate) fn ensure_standard_streams() {
    for number in 0..=2 {
        // SAFETY: the number is only asked about, within this statement; EBADF is the answer looked for.
        let stream = unsafe { BorrowedFd::borrow_raw(number) };
        if fcntl(stream, FcntlArg::F_GETFD) != Err(Errno::EBADF) {
            continue;
        }
        // The kernel gives the lowest free number, which is this one.
        let opened = open(
            "/dev/console",
            OFlag::O_RDWR | OFlag::O_NOCTTY,
            Mode::empty(),
        )
        .or_else(|_| open("/dev/null", OFlag::O_RDWR, Mode::empty()))
        .or_else(|_| memfd_create(c"no-console", MFdFlags::empty()));
        if let Ok(fd) = opened {
            // Stays open for the life of the process.
            let _ = fd.into_raw_fd();
        }
    }
}
