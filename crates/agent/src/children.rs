//! The agent's children: who waits for which, and the one lock under which they are made, signalled and reaped.
//!
//! Two threads make children: the command channel's and the agent API's. A child may end before its maker has written down
//! its number, and a number may be given anew once its status was taken; so making one, taking statuses and sending
//! signals each happen under the lock. Within it nothing waits.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::unistd::Pid;
use tokio::sync::oneshot;

use crate::reaper::{self, Reaped};

/// How a process has ended, as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By its own will, with this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

/// The children that somebody waits for.
#[derive(Debug, Default)]
pub(crate) struct Children {
    awaited: Mutex<HashMap<i32, oneshot::Sender<Exit>>>,
}

impl Children {
    /// Makes a child and waits for its end.
    pub(crate) fn make(
        &self,
        make: impl FnOnce() -> io::Result<Pid>,
    ) -> io::Result<(Pid, oneshot::Receiver<Exit>)> {
        let mut awaited = self.lock();
        let pid = make()?;
        let (sender, receiver) = oneshot::channel();
        awaited.insert(pid.as_raw(), sender);
        Ok((pid, receiver))
    }

    /// Signals the process group that an awaited child leads, by the signal's number, which may be a real-time one. False
    /// when the child has ended.
    pub(crate) fn signal_group(&self, pid: Pid, signal: i32) -> bool {
        let awaited = self.lock();
        // Its number is its own for as long as its status was not taken.
        if !awaited.contains_key(&pid.as_raw()) {
            return false;
        }
        // SAFETY: the call takes numbers only.
        if unsafe { libc::killpg(pid.as_raw(), signal) } == 0 {
            return true;
        }
        // A child that was just made does not lead its group yet: so far it is all that there is of it.
        // SAFETY: the call takes numbers only.
        Errno::last() == Errno::ESRCH && unsafe { libc::kill(pid.as_raw(), signal) } == 0
    }

    /// Reaps all that have ended, and tells those who wait.
    pub(crate) fn reap(&self) -> Reaped {
        let mut awaited = self.lock();
        let reaped = reaper::reap();
        for (pid, exit) in &reaped.ended {
            if let Some(sender) = awaited.remove(&pid.as_raw()) {
                // Nobody waits any more where the request was given up.
                let _ = sender.send(*exit);
            }
        }
        reaped
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<Exit>>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, OwnedFd};

    use nix::fcntl::OFlag;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::pipe2;

    use super::*;
    use crate::shell;

    /// A child that waits before it makes its session, for as long as the descriptor is open.
    fn child_before_its_session(children: &Children) -> (Pid, OwnedFd) {
        let (held, go_on) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let (pid, _exit) = children
            .make(|| match shell::fork_into(None)? {
                Some(pid) => Ok(pid),
                None => {
                    let mut byte = 0_u8;
                    // Its own copy would keep it waiting when this test has failed.
                    // SAFETY: the call takes a number only, and this copy of the test runs no destructors.
                    unsafe { libc::close(go_on.as_raw_fd()) };
                    // SAFETY: the buffer is as long as told.
                    unsafe { libc::read(held.as_raw_fd(), (&raw mut byte).cast(), 1) };
                    // SAFETY: _exit ends this child only.
                    unsafe { libc::_exit(0) }
                }
            })
            .unwrap();
        (pid, go_on)
    }

    #[test]
    fn a_child_that_has_no_process_group_of_its_own_yet_is_signalled_alone() {
        let children = Children::default();
        let (pid, _go_on) = child_before_its_session(&children);
        assert!(children.signal_group(pid, 0), "it is there");
        assert!(children.signal_group(pid, libc::SIGKILL));
        let ended = waitpid(pid, None).unwrap();
        let killed = WaitStatus::Signaled(pid, nix::sys::signal::Signal::SIGKILL, false);
        assert_eq!(ended, killed);
    }

    #[test]
    fn a_child_whose_status_was_taken_is_not_signalled() {
        let children = Children::default();
        // This very process: a number that is not the child's any more may be anybody's.
        assert!(!children.signal_group(Pid::this(), 0));
    }
}
