//! Pseudo-terminals.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::{Winsize, openpty};

use super::specification::Size;

/// Both ends: ours, which does not block, and the program's.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

/// Opens a terminal of this size.
pub(crate) fn open(size: Size) -> io::Result<Terminal> {
    let pair = openpty(&window(size), None)?;
    for end in [&pair.master, &pair.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(Terminal {
        master: pair.master,
        slave: pair.slave,
    })
}

/// Tells the terminal its new size; its foreground processes get SIGWINCH.
pub(crate) fn resize(master: BorrowedFd<'_>, size: Size) -> io::Result<()> {
    let window = window(size);
    // SAFETY: TIOCSWINSZ reads one structure, which lives through the call.
    let result =
        unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const window) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn window(Size { columns, rows }: Size) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
