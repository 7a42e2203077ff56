//! JavaScript's say in system calls.
//!
//! The program's thread asks by a threadsafe function and waits for `answer`, which names the
//! question it is for. The wait ends with the time of the run, an interrupt, and the end of the
//! environment too: a function that never answers holds nobody up.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use microvm_ring3_linux::{CallSet, Decision, Policy, SystemCall};
use napi::bindgen_prelude::{BigInt, Function, Uint8Array};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Status};
use napi_derive::napi;

use crate::error::BindingError;

/// `EINTR`: nobody sees it, for the run ends.
const NO_ANSWER: Decision = Decision::Deny(libc::EINTR);

/// A system call that JavaScript is asked about.
#[napi(object)]
pub struct BindingSystemCall {
    /// What the answer has to name.
    pub question: u32,
    /// Its number.
    pub number: f64,
    /// Its name.
    pub name: Option<String>,
    /// Its six arguments.
    pub args: Vec<BigInt>,
    /// The path that it names.
    pub path: Option<Uint8Array>,
}

// Typed arrays have no Debug.
impl std::fmt::Debug for BindingSystemCall {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("BindingSystemCall")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What becomes of a system call; neither of them lets it pass.
#[derive(Debug)]
#[napi(object)]
pub struct BindingDecision {
    /// The error that it fails with.
    pub deny: Option<i32>,
    /// What it returns.
    pub answer: Option<BigInt>,
}

impl From<BindingDecision> for Decision {
    fn from(decision: BindingDecision) -> Self {
        match (decision.deny, decision.answer) {
            (Some(errno), _) => Self::Deny(errno),
            (None, Some(value)) => Self::Answer(value.get_i64().0),
            (None, None) => Self::Allow,
        }
    }
}

type Ask = ThreadsafeFunction<BindingSystemCall, (), BindingSystemCall, Status, false, true>;

/// Where the program's thread and JavaScript's meet.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The question that is asked, or was last.
    question: u32,
    answer: Option<Decision>,
    /// Whether the run is to end.
    ended: bool,
}

impl Exchange {
    /// Makes ready for a run.
    pub(super) fn begin(&self) {
        self.lock().ended = false;
    }

    /// Ends the wait for an answer, and all that would follow in this run.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Answers a question; one that nobody waits for any more is passed over.
    pub(super) fn answer(&self, question: u32, decision: Decision) {
        let mut state = self.lock();
        if state.question == question {
            state.answer = Some(decision);
            self.changed.notify_all();
        }
    }

    fn next_question(&self) -> u32 {
        let mut state = self.lock();
        state.question = state.question.wrapping_add(1);
        state.answer = None;
        state.question
    }

    fn wait(&self, until: Option<Instant>) -> Decision {
        let mut state = self.lock();
        loop {
            if state.ended {
                return NO_ANSWER;
            }
            if let Some(decision) = state.answer.take() {
                return decision;
            }
            state = match until {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return NO_ANSWER;
                    }
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks JavaScript about the calls that it wants to be asked about.
pub(super) struct Hook {
    wanted: CallSet,
    ask: Ask,
    exchange: Arc<Exchange>,
}

impl Hook {
    /// On the JavaScript thread.
    pub(super) fn new(
        env: &Env,
        names: &[String],
        ask: &Function<'_, BindingSystemCall, ()>,
        exchange: &Arc<Exchange>,
    ) -> napi::Result<Self> {
        let wanted = CallSet::of_names(names.iter().map(String::as_str)).map_err(|name| {
            let message = format!("No system call is called {name}");
            BindingError::coded("ERR_INVALID_OPTIONS", message).into_js(env)
        })?;
        let ask = ask
            .build_threadsafe_function::<BindingSystemCall>()
            .weak::<true>()
            .build_callback(|context| Ok(context.value))?;
        Ok(Self {
            wanted,
            ask,
            exchange: Arc::clone(exchange),
        })
    }
}

impl Policy for Hook {
    fn wanted(&self) -> CallSet {
        self.wanted
    }

    fn decide(&mut self, call: &SystemCall<'_>) -> Decision {
        let question = BindingSystemCall {
            question: self.exchange.next_question(),
            #[allow(clippy::cast_precision_loss, reason = "numbers of calls are small")]
            number: call.number as f64,
            name: call.name().map(str::to_owned),
            args: call.args.into_iter().map(BigInt::from).collect(),
            path: call.path.map(Uint8Array::from),
        };
        match self
            .ask
            .call(question, ThreadsafeFunctionCallMode::NonBlocking)
        {
            Status::Ok => self.exchange.wait(call.until),
            // The environment has ended, and stops the run.
            _ => NO_ANSWER,
        }
    }
}
