//! The process that stays outside: it removes the daemon's files when the daemon ends, however it ends.
//!
//! The server cannot do that itself. It has another root folder, and no way out of it.

use std::io;

use log::error;
use virtiofsd::util::sfork;

use crate::error::Error;
use crate::signals::HeldBack;
use crate::socket::Files;

/// What this process is after [`split`].
pub enum Side {
    /// The one that goes on to serve.
    Server,
    /// The one that has waited, with the status to end with.
    Done(u8),
}

/// Forks. The new process goes on; this one returns when that has ended, or when a signal has asked for the end. All
/// processes of the server's have ended then, also those that it has left behind.
pub fn split(files: Files, held: &HeldBack) -> Result<Side, Error> {
    adopt_orphans().map_err(Error::Supervise)?;
    // The new process gets SIGTERM when this one dies.
    let server = sfork().map_err(Error::Supervise)?;
    if server == 0 {
        held.release();
        files.disown();
        return Ok(Side::Server);
    }
    loop {
        if held.wait() == libc::SIGCHLD {
            match ended(server).map_err(Error::Supervise)? {
                Some(status) => {
                    wait_for_the_rest();
                    return Ok(Side::Done(status));
                }
                None => continue,
            }
        }
        // SAFETY: our own child, which has not been waited for.
        unsafe { libc::kill(server, libc::SIGTERM) };
        wait_for_the_rest();
        return Ok(Side::Done(1));
    }
}

/// Has this process wait for its children's children too. With namespaces the server is one: its parent may end first.
fn adopt_orphans() -> io::Result<()> {
    // SAFETY: takes numbers only.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits until there is no child any more: each has got SIGTERM, by the death of its parent.
fn wait_for_the_rest() {
    // SAFETY: the status is not asked for.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
}

/// The status of the server, if it has ended: its own, or 128 and the signal that ended it, which is logged.
fn ended(server: libc::pid_t) -> io::Result<Option<u8>> {
    let mut status = 0;
    // SAFETY: room for the status.
    match unsafe { libc::waitpid(server, &raw mut status, libc::WNOHANG) } {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        _ if libc::WIFEXITED(status) => Ok(Some(match libc::WEXITSTATUS(status) {
            // The parent in between, which has logged it, ends with the signal's number below zero.
            code @ 192..=255 => by_signal(256 - code),
            code => u8::try_from(code).unwrap_or(u8::MAX),
        })),
        _ if libc::WIFSIGNALED(status) => {
            let signal = libc::WTERMSIG(status);
            error!("Child process terminated by signal {signal}");
            Ok(Some(by_signal(signal)))
        }
        _ => Ok(None),
    }
}

fn by_signal(signal: libc::c_int) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}
