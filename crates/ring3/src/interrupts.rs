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
    /// The vCPU of the switch that is under way.
    running: Option<ImmediateExit>,
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

    /// Ends the switch that is under way, for its time is over. Called between
    /// [`Interrupts::take`] and the end of that switch only.
    pub fn time_out(&self) {
        let mut state = lock(&self.state);
        state.timed_out = true;
        // Where the thread cannot be signalled the flag still ends its next run.
        let _ = state.kick();
    }

    /// Takes an interrupt that came before a switch, and forgets the timeout of the one before.
    pub fn take(&self) -> bool {
        let mut state = lock(&self.state);
        state.timed_out = false;
        std::mem::take(&mut state.interrupted)
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
    pub fn begin(&self, exit: &ImmediateExit) -> Request {
        let mut state = lock(&self.state);
        let request = state.request();
        if request == Request::Other {
            state.running = Some(exit.clone());
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
        if let Some(exit) = state.running.take()
            && (state.interrupted || state.timed_out)
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
        self.running.as_ref().map_or(Ok(()), ImmediateExit::request)
    }
}
