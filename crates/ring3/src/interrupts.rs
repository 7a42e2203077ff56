//! What can end a switch from outside: interrupts and timeouts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use microvm_kvm::ImmediateExit;

use crate::page_tables::lock;
use crate::pool::Waiter;

/// An interrupt that nobody has seen.
const INTERRUPTED: u64 = 1;
/// The time of the switch that is under way is over.
const TIMED_OUT: u64 = 2;
/// The vCPU runs the switch that is under way.
const RUNNING: u64 = 4;

/// The requests to one context.
///
/// A switch that nobody interrupts only touches `flags`. Whoever sets a request holds the lock
/// until the switch that it found there was told.
#[derive(Debug, Default)]
pub struct Interrupts {
    flags: AtomicU64,
    target: Mutex<Target>,
    /// One more than the number of the vCPU that `target` has, for those who only look.
    vcpu: AtomicU64,
}

/// What a request has to be told to.
#[derive(Debug, Default)]
struct Target {
    /// The vCPU that the context ran on last. Most switches find theirs here.
    exit: Option<ImmediateExit>,
    /// How the switch that is under way waits for a vCPU.
    waiting: Option<Arc<Waiter>>,
}

/// What has ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Interrupt,
    Timeout,
    /// Nothing of this context's: it runs on.
    Other,
}

impl Interrupts {
    /// Interrupts the switch that is under way, or else the next one.
    pub fn interrupt(&self) -> Result<(), microvm_kvm::Error> {
        self.set(INTERRUPTED)
    }

    /// Takes back an interrupt that nobody has seen; a run that it kicked already goes on.
    pub fn withdraw(&self) -> bool {
        self.take()
    }

    /// Ends the switch that is under way, for its time is over. Called during that switch only,
    /// and before [`Interrupts::forget_timeout`].
    pub fn time_out(&self) {
        // Where the thread cannot be signalled the flag still ends its next run.
        let _ = self.set(TIMED_OUT);
    }

    /// Takes an interrupt that came before a switch which does not run.
    pub fn take(&self) -> bool {
        self.flags.fetch_and(!INTERRUPTED, Ordering::SeqCst) & INTERRUPTED != 0
    }

    /// Makes ready for the next switch, after one that had a timeout.
    pub fn forget_timeout(&self) {
        self.flags.fetch_and(!TIMED_OUT, Ordering::SeqCst);
    }

    /// Begins to wait for a vCPU, unless something was requested already.
    pub fn begin_wait(&self, waiter: &Arc<Waiter>) -> Request {
        let mut target = self.lock();
        let request = self.pending();
        if request == Request::Other {
            target.waiting = Some(Arc::clone(waiter));
        }
        request
    }

    /// Ends the wait, and tells what has ended it.
    pub fn end_wait(&self) -> Request {
        self.lock().waiting = None;
        self.pending()
    }

    /// Begins the runs of a switch on a vCPU, unless something was requested already.
    #[inline]
    pub fn begin(&self, vcpu: u64, exit: &ImmediateExit) -> Request {
        if self.vcpu.load(Ordering::Relaxed) != vcpu + 1 {
            self.aim_at(vcpu, exit);
        }
        let before = self.flags.fetch_or(RUNNING, Ordering::SeqCst);
        if before & (INTERRUPTED | TIMED_OUT) == 0 {
            return Request::Other;
        }
        self.end();
        self.request()
    }

    #[cold]
    fn aim_at(&self, vcpu: u64, exit: &ImmediateExit) {
        self.lock().exit = Some(exit.clone());
        self.vcpu.store(vcpu + 1, Ordering::Relaxed);
    }

    /// What has ended a run of the switch.
    pub fn request(&self) -> Request {
        let request = self.pending();
        if request == Request::Interrupt {
            // Perhaps seen before the vCPU was told of it.
            self.withdraw_request();
        }
        request
    }

    fn pending(&self) -> Request {
        if self.take() {
            Request::Interrupt
        } else if self.flags.load(Ordering::SeqCst) & TIMED_OUT != 0 {
            Request::Timeout
        } else {
            Request::Other
        }
    }

    /// Ends the switch. What was requested and not taken holds for the next one.
    #[inline]
    pub fn end(&self) {
        let before = self.flags.fetch_and(!RUNNING, Ordering::SeqCst);
        if before & (INTERRUPTED | TIMED_OUT) != 0 {
            self.withdraw_request();
        }
    }

    #[cold]
    fn withdraw_request(&self) {
        // The vCPU's next user has nothing to do with it.
        if let Some(exit) = &self.lock().exit {
            exit.withdraw();
        }
    }

    fn set(&self, request: u64) -> Result<(), microvm_kvm::Error> {
        let target = self.lock();
        let before = self.flags.fetch_or(request, Ordering::SeqCst);
        if let Some(waiter) = &target.waiting {
            waiter.wake();
        }
        match &target.exit {
            Some(exit) if before & RUNNING != 0 => exit.request(),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Target> {
        lock(&self.target)
    }
}
