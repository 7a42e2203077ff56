//! The host name, and the loopback interface: programs talk to themselves through it.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::unistd::sethostname;

use crate::console::note;

/// libc's constant is wider than the field.
const IFF_UP: libc::c_short = 1;

pub(crate) fn set_host_name(name: &str) {
    if let Err(errno) = sethostname(name) {
        note(format_args!("cannot set the host name to {name}: {errno}"));
    }
}

/// Switches `lo` on; the kernel gives it 127.0.0.1 and ::1 by itself then.
pub(crate) fn bring_up_loopback() {
    if let Err(error) = switch_on_loopback() {
        note(format_args!(
            "cannot bring up the loopback interface: {error}"
        ));
    }
}

fn switch_on_loopback() -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all zeroes is a valid ifreq: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    // IFF_UP alone: LOOPBACK is not the caller's to change, and RUNNING is the kernel's.
    request.ifr_ifru.ifru_flags = IFF_UP;
    // SAFETY: SIOCSIFFLAGS reads an ifreq with its name and flags set, which lives through the call.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
