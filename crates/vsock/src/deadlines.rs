//! One timer descriptor for all the moments at which the device gives up on somebody.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Who waits until when. Its descriptor turns readable when the first deadline has passed.
#[derive(Debug)]
pub(crate) struct Deadlines {
    timer: OwnedFd,
    waiting: BTreeSet<(Instant, u64)>,
    armed: Option<Instant>,
}

impl Deadlines {
    /// No deadlines yet.
    pub(crate) fn new() -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        Ok(Self {
            timer,
            waiting: BTreeSet::new(),
            armed: None,
        })
    }

    /// Has [`Self::expired`] name `id` once `delay` is over; returns what cancels it.
    pub(crate) fn add(&mut self, id: u64, delay: Duration) -> Instant {
        let at = Instant::now() + delay;
        self.waiting.insert((at, id));
        self.arm();
        at
    }

    /// Forgets a deadline. The timer may still fire once for it, for nobody.
    pub(crate) fn cancel(&mut self, at: Instant, id: u64) {
        self.waiting.remove(&(at, id));
    }

    /// Takes everybody whose deadline has passed, and sets the timer for the next.
    pub(crate) fn expired(&mut self) -> Vec<u64> {
        let now = Instant::now();
        let later = self.waiting.split_off(&(now, u64::MAX));
        let expired = std::mem::replace(&mut self.waiting, later);
        self.armed = None;
        self.arm();
        expired.into_iter().map(|(_, id)| id).collect()
    }

    /// Sets the timer where the first deadline comes before what it is set for. Setting it also
    /// takes back an expiry that nobody read, so the descriptor need not be read.
    fn arm(&mut self) {
        let first = self.waiting.first().map(|(at, _)| *at);
        let due = match (first, self.armed) {
            (Some(first), Some(armed)) if armed <= first => return,
            (None, Some(_)) => return,
            (first, _) => first,
        };
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = due.map_or(zero, |at| {
            // A value of zero would disarm the timer.
            let delay = at
                .saturating_duration_since(Instant::now())
                .max(Duration::from_nanos(1));
            Timespec {
                tv_sec: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: delay.subsec_nanos().into(),
            }
        });
        let setting = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        // It can only fail for a bad descriptor or value, and both are right by construction.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting);
        self.armed = due;
    }
}

impl AsFd for Deadlines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
