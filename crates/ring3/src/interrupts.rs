//! What can end a switch from outside: interrupts and timeouts.

use std::sync::{Arc, Mutex};

use microvm_kvm::ImmediateExit;

use crate::page_tables::lock;
use crate::pool::Waiter;

/// The requests to one context.
#[derive(Debug, Default)]
pub struct Interrupts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    interrupted: bool,
    timed_out: bool,
    /// Whether the vCPU runs the switch that is under way.
    running: bool,
    /// The vCPU that it ran on last, and its number. Most switches find theirs here.
    vcpu: Option<(u64, ImmediateExit)>,
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
        let mut state = lock(&self.state);
        state.interrupted = true;
        state.kick()
    }

    /// Takes back an interrupt that nobody has seen; a run that it kicked already goes on.
    pub fn withdraw(&self) -> bool {
        std::mem::take(&mut lock(&self.state).interrupted)
    }

    /// Ends the switch that is under way, for its time is over. Called during that switch only,
    /// and before [`Interrupts::forget_timeout`].
    pub fn time_out(&self) {
        let mut state = lock(&self.state);
        state.timed_out = true;
        // Where the thread cannot be signalled the flag still ends its next run.
        let _ = state.kick();
    }

    /// Takes an interrupt that came before a switch which does not run.
    pub fn take(&self) -> bool {
        std::mem::take(&mut lock(&self.state).interrupted)
    }

    /// Makes ready for the next switch, after one that had a timeout.
    pub fn forget_timeout(&self) {
        lock(&self.state).timed_out = false;
    }

    /// Begins to wait for a vCPU, unless something was requested already.
    pub fn begin_wait(&self, waiter: &Arc<Waiter>) -> Request {
        let mut state = lock(&self.state);
        let request = state.request();
        if request == Request::Other {
            state.waiting = Some(Arc::clone(waiter));
        }
        request
    }

    /// Ends the wait, and tells what has ended it.
    pub fn end_wait(&self) -> Request {
        let mut state = lock(&self.state);
        state.waiting = None;
        state.request()
    }

    /// Begins the runs of a switch on a vCPU, unless something was requested already.
    pub fn begin(&self, vcpu: u64, exit: &ImmediateExit) -> Request {
        let mut state = lock(&self.state);
        let request = state.request();
        if request == Request::Other {
            if state.vcpu.as_ref().is_none_or(|(id, _)| *id != vcpu) {
                state.vcpu = Some((vcpu, exit.clone()));
            }
            state.running = true;
        }
        request
    }

    /// What has ended a run of the switch.
    pub fn request(&self) -> Request {
        lock(&self.state).request()
    }

    /// Ends the switch. What was requested and not taken holds for the next one.
    pub fn end(&self) {
        let mut state = lock(&self.state);
        state.running = false;
        if (state.interrupted || state.timed_out)
            && let Some((_, exit)) = &state.vcpu
        {
            // The vCPU's next user has nothing to do with it.
            exit.withdraw();
        }
    }
}

impl State {
    fn request(&mut self) -> Request {
        if std::mem::take(&mut self.interrupted) {
            Request::Interrupt
        } else if self.timed_out {
            Request::Timeout
        } else {
            Request::Other
        }
    }

    fn kick(&self) -> Result<(), microvm_kvm::Error> {
        if let Some(waiter) = &self.waiting {
            waiter.wake();
        }
        match &self.vcpu {
            Some((_, exit)) if self.running => exit.request(),
            _ => Ok(()),
        }
    }
}
