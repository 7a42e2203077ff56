//! The one place that takes the status of ended children, the agent's own and the orphans that PID 1 inherits.

use std::io;

use nix::sys::prctl;
use nix::unistd::Pid;

use crate::console::note;

/// What a shell adds to the number of the signal that ended a command.
const SIGNALED: i32 = 128;

/// The children that have ended since the last look.
#[derive(Debug, Default)]
pub(crate) struct Reaped {
    /// Each with its exit code as a shell would tell it: 128 + n for signal n.
    pub(crate) ended: Vec<(Pid, u8)>,
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
            pid if pid > 0 => reaped.ended.push((Pid::from_raw(pid), exit_code(status))),
            _ => {
                if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                    reaped.none_left = true;
                    return reaped;
                }
            }
        }
    }
}

fn exit_code(status: libc::c_int) -> u8 {
    let code = if libc::WIFSIGNALED(status) {
        SIGNALED.saturating_add(libc::WTERMSIG(status))
    } else {
        libc::WEXITSTATUS(status)
    };
    u8::try_from(code).unwrap_or(u8::MAX)
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
        assert_eq!(exit_code(7 << 8), 7);
        assert_eq!(exit_code(255 << 8), 255);
        assert_eq!(exit_code(libc::SIGKILL), 137);
        assert_eq!(exit_code(libc::SIGSEGV | 0x80), 139);
        assert_eq!(exit_code(libc::SIGRTMAX()), 192);
    }
}
