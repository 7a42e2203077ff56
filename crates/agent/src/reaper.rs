//! The one place that takes the status of ended children, the agent's own and the orphans that PID 1 inherits.

use std::io;

use nix::sys::prctl;
use nix::unistd::Pid;

use crate::children::Exit;
use crate::console::note;

/// What a shell adds to the number of the signal that ended a command.
const SIGNALED: u8 = 128;

/// The children that have ended since the last look.
#[derive(Debug, Default)]
pub(crate) struct Reaped {
    /// Each with how it ended.
    pub(crate) ended: Vec<(Pid, Exit)>,
    /// True when no child, running or ended, is left.
    pub(crate) none_left: bool,
}

/// Reaps all children that have ended. Never blocks.
///
/// One SIGCHLD can stand for many children, so this is called for each wake-up and looks until there is nothing more.
pub(crate) fn reap() -> Reaped {
    let mut reaped = Reaped::default();
    loop {
        let mut status = 0;
        // nix's waitpid knows no real-time signals: it would reap a child that one has ended, and lose its status.
        // SAFETY: the status lives through the call.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            0 => return reaped,
            pid if pid > 0 => reaped.ended.push((Pid::from_raw(pid), exit_of(status))),
            _ => {
                if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                    reaped.none_left = true;
                    return reaped;
                }
            }
        }
    }
}

fn exit_of(status: libc::c_int) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal(u8::try_from(libc::WTERMSIG(status)).unwrap_or(u8::MAX))
    } else {
        Exit::Code(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
    }
}

impl Exit {
    /// The exit code as a shell would tell it: 128 + n for signal n.
    pub(crate) fn code_of_shell(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => SIGNALED.saturating_add(signal),
        }
    }
}

/// Lets an agent that is not PID 1 inherit the orphans below it, as PID 1 does.
pub(crate) fn adopt_orphans() {
    if let Err(errno) = prctl::set_child_subreaper(true) {
        note(format_args!("cannot adopt orphans: {errno}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        // The encoding of the kernel: code in the second byte, signal in the first.
        for (status, exit, code) in [
            (7 << 8, Exit::Code(7), 7),
            (255 << 8, Exit::Code(255), 255),
            (libc::SIGKILL, Exit::Signal(9), 137),
            (libc::SIGSEGV | 0x80, Exit::Signal(11), 139),
            (libc::SIGRTMAX(), Exit::Signal(64), 192),
        ] {
            assert_eq!(exit_of(status), exit);
            assert_eq!(exit.code_of_shell(), code);
        }
    }
}
