//! A thread that runs programs for one JavaScript object, one run after the other.
//!
//! It is made by the first run and kept: the platform gives a thread the vCPU that it had before.

use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use microvm_kvm::block_other_signals;
use napi::tokio::sync::oneshot;

use super::closed;
use crate::error::BindingError;

type Job = Box<dyn FnOnce() + Send>;

/// The thread, once there is one.
#[derive(Debug)]
pub(super) struct Worker {
    what: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Idle,
    Started(Started),
    Closed,
}

#[derive(Debug)]
struct Started {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// `what` runs there, for messages and as the thread's name.
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            state: Mutex::new(State::Idle),
        }
    }

    /// Has the thread do `work`; what it gives can be received.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, BindingError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, BindingError>>, BindingError> {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Nobody waits any more where the environment has ended.
            let _ = reply.send(work());
        });
        let mut state = self.lock();
        let started = match &mut *state {
            State::Closed => return Err(closed(self.what)),
            State::Started(started) => started,
            State::Idle => {
                *state = State::Started(self.start()?);
                match &mut *state {
                    State::Started(started) => started,
                    State::Idle | State::Closed => return Err(closed(self.what)),
                }
            }
        };
        match started.jobs.send(job) {
            Ok(()) => Ok(result),
            Err(_) => Err(unexpected_end()),
        }
    }

    fn start(&self) -> Result<Started, BindingError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name(format!("ring3-{}", self.what))
            .spawn(move || {
                // Where that fails, another signal ends a run early, and the platform goes on.
                let _ = block_other_signals();
                for job in queue {
                    job();
                }
            })
            .map(|thread| Started { jobs, thread })
            .map_err(|error| BindingError::system("Cannot start a thread for programs", &error))
    }

    /// Takes no more runs, and returns when the last one has ended and the thread is gone.
    pub(super) fn close(&self) {
        let before = std::mem::replace(&mut *self.lock(), State::Closed);
        if let State::Started(Started { jobs, thread }) = before {
            drop(jobs);
            // A panic there was reported to whoever waited for the run.
            let _ = thread.join();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a receiver says whose run has panicked.
pub(super) async fn outcome<T>(
    result: oneshot::Receiver<Result<T, BindingError>>,
) -> Result<T, BindingError> {
    result.await.unwrap_or_else(|_| Err(unexpected_end()))
}

fn unexpected_end() -> BindingError {
    BindingError::internal("The thread of a program ended unexpectedly".to_owned())
}
