//! The process that stays outside: it removes the daemon's files when the daemon ends, however it ends.
//!
//! The server cannot do that itself. It has another root folder, and no way out of it.

use std::io;

use virtiofsd::util::sfork;

use crate::error::Error;
use crate::signals::hold_back;
use crate::socket::Files;

/// What this process is after [`split`].
pub enum Side {
    /// The one that goes on to serve.
    Server,
    /// The one that has waited, with the status to end with.
    Done(u8),
}

/// Forks. The new process goes on; this one returns when that has ended, or when a signal has asked for the end.
pub fn split(files: Files) -> Result<Side, Error> {
    let held = hold_back().map_err(Error::Signals)?;
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
                Some(status) => return Ok(Side::Done(status)),
                None => continue,
            }
        }
        // SAFETY: our own child, which has not been waited for.
        unsafe { libc::kill(server, libc::SIGTERM) };
        // SAFETY: as above; the status is not asked for.
        unsafe { libc::waitpid(server, std::ptr::null_mut(), 0) };
        return Ok(Side::Done(1));
    }
}

/// The status of the server, if it has ended: its own, or 128 and the signal that ended it.
fn ended(server: libc::pid_t) -> io::Result<Option<u8>> {
    let mut status = 0;
    // SAFETY: room for the status.
    match unsafe { libc::waitpid(server, &raw mut status, libc::WNOHANG) } {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        _ if libc::WIFEXITED(status) => Ok(Some(
            u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX),
        )),
        _ if libc::WIFSIGNALED(status) => Ok(Some(
            u8::try_from(128 + libc::WTERMSIG(status)).unwrap_or(u8::MAX),
        )),
        _ => Ok(None),
    }
}
