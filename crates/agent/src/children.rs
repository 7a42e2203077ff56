//! The agent's children: who waits for which, and the one lock under which they are made, signalled and reaped.
//!
//! Two threads make children: the command channel's and the agent API's. A child may end before its maker has written down
//! its number, and a number may be given anew once its status was taken; so making one, taking statuses and sending
//! signals each happen under the lock. Within it nothing waits.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
        awaited.contains_key(&pid.as_raw()) && {
            // SAFETY: the call takes numbers only.
            unsafe { libc::killpg(pid.as_raw(), signal) == 0 }
        }
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
