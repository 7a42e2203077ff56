//! The agent's words on the guest's console, where a person looks when a guest does not come up.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::unistd::write;

/// The console of PID 1, on an open file description of its own: whether a write may block is a property of that.
static CONSOLE: OnceLock<OwnedFd> = OnceLock::new();

/// Sends notes to the console of the guest, where there is one by now. What it cannot take at once is dropped.
///
/// Standard error would block for as long as nobody reads the other end of the console, and PID 1 with it.
pub(crate) fn use_console_of_guest() {
    if CONSOLE.get().is_some() {
        return;
    }
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    if let Ok(console) = open("/dev/console", flags, Mode::empty()) {
        let _ = CONSOLE.set(console);
    }
}

/// Writes one line. A console that cannot be written is no reason to fail.
pub(crate) fn note(message: fmt::Arguments<'_>) {
    // One write for the whole line: the kernel's messages share the console.
    let line = format!("microvm-agent: {message}\n");
    match CONSOLE.get() {
        Some(console) => write_at_most(console, line.as_bytes()),
        None => {
            let _ = io::stderr().lock().write_all(line.as_bytes());
        }
    }
}

/// Writes as much as goes without waiting.
fn write_at_most(console: impl AsFd, line: &[u8]) {
    let mut rest = line;
    while !rest.is_empty() {
        match write(&console, rest) {
            Ok(0) => return,
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{pipe2, read};

    #[test]
    fn a_console_that_nobody_reads_does_not_block() {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        let line = [b'x'; 5000];
        // Far more than a pipe holds.
        for _ in 0..1000 {
            write_at_most(&writer, &line);
        }
        let mut seen = [0; 5000];
        assert_eq!(read(&reader, &mut seen), Ok(5000));
        assert_eq!(seen, line);
    }
}
