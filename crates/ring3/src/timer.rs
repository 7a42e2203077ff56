//! Ends switches whose time is over: one thread a machine, made when the first one has a timeout.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::error::Error;
use crate::interrupts::Interrupts;
use crate::page_tables::lock;

/// When something is to be ended; the number keeps two of the same instant apart.
pub type Deadline = (Instant, u64);

/// The deadlines of a machine, and the thread that waits for them.
#[derive(Debug)]
pub struct Timer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    deadlines: BTreeMap<Deadline, Arc<Interrupts>>,
    next: u64,
    stop: bool,
}

impl Timer {
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
            thread: Mutex::default(),
        }
    }

    /// Calls [`Interrupts::time_out`] at `instant`, unless it is taken back before.
    pub fn arm(&self, instant: Instant, interrupts: &Arc<Interrupts>) -> Result<Deadline, Error> {
        self.start()?;
        let mut state = lock(&self.shared.state);
        state.next += 1;
        let deadline = (instant, state.next);
        let first = state.deadlines.first_key_value().map(|(first, _)| *first);
        state.deadlines.insert(deadline, Arc::clone(interrupts));
        if first.is_none_or(|first| deadline < first) {
            self.shared.changed.notify_one();
        }
        Ok(deadline)
    }

    /// Takes a deadline back. When this returns [`Interrupts::time_out`] was called or never will
    /// be.
    pub fn disarm(&self, deadline: Deadline) {
        // The thread wakes once for nothing at worst.
        lock(&self.shared.state).deadlines.remove(&deadline);
    }

    fn start(&self) -> Result<(), Error> {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let spawned = std::thread::Builder::new()
                .name("microvm-ring3-timer".into())
                .spawn(move || shared.run());
            *thread = Some(spawned.map_err(|error| Error::Thread {
                errno: error.raw_os_error().unwrap_or(0),
            })?);
        }
        Ok(())
    }
}

impl Shared {
    fn run(&self) {
        let mut state = lock(&self.state);
        while !state.stop {
            let Some((&deadline, _)) = state.deadlines.first_key_value() else {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.0.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if let Some(interrupts) = state.deadlines.remove(&deadline) {
                    interrupts.time_out();
                }
                continue;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = lock(&self.thread).take() {
            // It ends at once; a panic there has nothing to add.
            let _ = thread.join();
        }
    }
}
