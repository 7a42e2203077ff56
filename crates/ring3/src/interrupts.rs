//! What can end a switch from outside: interrupts and timeouts.

use std::sync::Mutex;

use microvm_kvm::ImmediateExit;

use crate::page_tables::lock;
use crate::timer::Deadline;

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
    deadline: Option<Deadline>,
}

/// What has ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Interrupt,
    Timeout,
    /// Nothing of this context's; it runs on.
    Other,
}

impl Interrupts {
    /// Interrupts the switch that is under way, or else the next one.
    pub fn interrupt(&self) -> Result<(), microvm_kvm::Error> {
        let mut state = lock(&self.state);
        state.interrupted = true;
        state.kick()
    }

    /// Ends the switch that has this deadline.
    pub fn time_out(&self, deadline: Deadline) {
        let mut state = lock(&self.state);
        if state.deadline == Some(deadline) {
            state.timed_out = true;
            // Where the thread cannot be signalled the flag still ends its next run.
            let _ = state.kick();
        }
    }

    /// Takes an interrupt that came before a switch.
    pub fn take(&self) -> bool {
        std::mem::take(&mut lock(&self.state).interrupted)
    }

    /// Begins a switch on a vCPU. False where there is an interrupt, which counts as taken.
    pub fn begin(&self, exit: &ImmediateExit, deadline: Option<Deadline>) -> bool {
        let mut state = lock(&self.state);
        if std::mem::take(&mut state.interrupted) {
            return false;
        }
        state.timed_out = false;
        state.deadline = deadline;
        state.running = Some(exit.clone());
        true
    }

    /// What has ended a run of the switch.
    pub fn request(&self) -> Request {
        let mut state = lock(&self.state);
        if std::mem::take(&mut state.interrupted) {
            return Request::Interrupt;
        }
        if state.timed_out {
            return Request::Timeout;
        }
        Request::Other
    }

    /// Ends the switch. What was requested and not taken holds for the next one.
    pub fn end(&self) {
        let mut state = lock(&self.state);
        state.deadline = None;
        if let Some(exit) = state.running.take()
            && (state.interrupted || state.timed_out)
        {
            // The vCPU's next user has nothing to do with it.
            exit.withdraw();
        }
    }
}

impl State {
    fn kick(&self) -> Result<(), microvm_kvm::Error> {
        self.running.as_ref().map_or(Ok(()), ImmediateExit::request)
    }
}
