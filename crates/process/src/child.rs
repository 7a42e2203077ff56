//! A running helper, as its owner sees it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How a helper ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It ended by itself, with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
    /// It has ended, but somebody else in this process had already taken its status (a `waitpid(-1)`, or an ignored
    /// `SIGCHLD`).
    Unknown,
}

impl ExitStatus {
    /// True when it ended with code 0.
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }
}

/// A started helper. Dropping it neither ends nor leaks the process: it is still reaped, and still dies with this one.
#[derive(Debug)]
pub struct Child {
    pub(crate) pid: u32,
    pub(crate) pidfd: Arc<OwnedFd>,
    pub(crate) end_signal: i32,
    pub(crate) end: Arc<End>,
    pub(crate) captured: [Option<OwnedFd>; 3],
}

impl Child {
    /// The process number, for messages. Use [`kill`](Self::kill) for signals: numbers are reused.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The pidfd, readable once the helper has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// This process's end of a captured standard input; `None` when it is not captured or was taken already.
    pub fn take_stdin(&mut self) -> Option<OwnedFd> {
        let [stdin, _, _] = &mut self.captured;
        stdin.take()
    }

    /// This process's end of a captured standard output.
    pub fn take_stdout(&mut self) -> Option<OwnedFd> {
        let [_, stdout, _] = &mut self.captured;
        stdout.take()
    }

    /// This process's end of a captured standard error.
    pub fn take_stderr(&mut self) -> Option<OwnedFd> {
        let [_, _, stderr] = &mut self.captured;
        stderr.take()
    }

    /// Blocks until the helper has ended. May be called by many threads and many times.
    pub fn wait(&self) -> ExitStatus {
        let mut status = self.end.lock();
        loop {
            if let Some(status) = *status {
                return status;
            }
            status = self
                .end
                .changed
                .wait(status)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Like [`wait`](Self::wait), but gives up after `timeout` with `None`.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<ExitStatus> {
        let running = |status: &mut Option<ExitStatus>| status.is_none();
        let (status, _) = self
            .end
            .changed
            .wait_timeout_while(self.end.lock(), timeout, running)
            .unwrap_or_else(PoisonError::into_inner);
        *status
    }

    /// The status if the helper has ended, without waiting.
    pub fn try_wait(&self) -> Option<ExitStatus> {
        *self.end.lock()
    }

    /// Ends it as the end of this process does: by [`SpawnOptions::end_signal`](crate::SpawnOptions::end_signal).
    ///
    /// # Errors
    ///
    /// As [`kill`](Self::kill).
    pub fn end(&self) -> io::Result<()> {
        self.kill(self.end_signal)
    }

    /// Sends a signal. One that comes too late, as the helper has ended, is no error.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a number that is no signal, `EPERM` when the helper has changed its user.
    pub fn kill(&self, signal: i32) -> io::Result<()> {
        // SAFETY: the pidfd is open, and a null siginfo makes the kernel fill in its own.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal,
                ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ESRCH) {
            Ok(())
        } else {
            Err(error)
        }
    }
}

/// The end of a helper, told by the reaping thread to whoever waits.
#[derive(Debug, Default)]
pub(crate) struct End {
    status: Mutex<Option<ExitStatus>>,
    changed: Condvar,
}

impl End {
    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        // The value is written in one step, so a thread that panicked elsewhere cannot have left it half-made.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, status: ExitStatus) {
        *self.lock() = Some(status);
        self.changed.notify_all();
    }
}
