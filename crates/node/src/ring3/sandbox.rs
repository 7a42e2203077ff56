//! Sandboxes that run Linux programs.
//!
//! A run happens on the sandbox's own thread, which holds it meanwhile. The JavaScript thread never
//! waits for it: calls fail with `ERR_RING3_BUSY` then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use microvm_kvm::reaper;
use microvm_ring3_linux::{Interrupter, Observer, Policy, Run, Sandbox};
use napi::Env;
use napi::bindgen_prelude::{Function, PromiseRaw};
use napi_derive::napi;

use super::exit::milliseconds;
use super::hook::{BindingDecision, BindingSystemCall, Exchange, Hook};
use super::outcome::{
    BindingOutcome, BindingRun, BindingSandboxOptions, from_native, prepare, sandbox_options,
};
use super::platform::BindingPlatform;
use super::worker::{Worker, outcome};
use super::{busy, closed};
use crate::cleanup::{Stop, stop_at_end_of_env};
use crate::error::BindingError;
use crate::promise;

const WHAT: &str = "sandbox";

/// What JavaScript's object holds: the sandbox, and the thread that runs its programs.
#[derive(Debug)]
struct SandboxHandle {
    shared: Arc<Shared>,
    worker: Worker,
}

/// What the thread holds: not the handle, so that it ends when the handle is collected.
#[derive(Debug)]
struct Shared {
    sandbox: Mutex<Option<Sandbox>>,
    exchange: Arc<Exchange>,
    /// Locked while a run is interrupted, so that no interrupt comes after its end.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Whether a run or a reset has begun that has not ended.
    running: bool,
    /// `None` once it is closed: it has a descriptor.
    interrupter: Option<Interrupter>,
}

impl Shared {
    fn begin(&self) -> Result<(), BindingError> {
        let mut state = self.state();
        let Some(interrupter) = &state.interrupter else {
            return Err(closed(WHAT));
        };
        if state.running {
            return Err(busy("The sandbox is running a program already"));
        }
        // One that came when the run before had ended by itself.
        let _ = interrupter.withdraw();
        self.exchange.begin();
        state.running = true;
        Ok(())
    }

    fn end(&self) {
        self.state().running = false;
    }

    /// Ends the run under way, if there is one.
    fn interrupt(&self) {
        self.interrupt_run(&self.state());
    }

    /// Refuses runs from now on, and ends the one under way.
    fn begin_close(&self) {
        let mut state = self.state();
        self.interrupt_run(&state);
        state.interrupter = None;
    }

    fn interrupt_run(&self, state: &State) {
        if let (true, Some(interrupter)) = (state.running, &state.interrupter) {
            // In this order: the program must not run on between the two.
            interrupter.interrupt();
            self.exchange.end();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` with the sandbox, on its thread, between [`Shared::begin`] and [`Shared::end`].
    fn with<R>(
        &self,
        work: impl FnOnce(&mut Sandbox) -> Result<R, microvm_ring3_linux::Error>,
    ) -> Result<R, BindingError> {
        let mut sandbox = self.sandbox.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match &mut *sandbox {
            Some(sandbox) => work(sandbox).map_err(BindingError::from),
            None => Err(closed(WHAT)),
        };
        self.end();
        result
    }
}

impl Stop for SandboxHandle {
    fn stop(&self) {
        self.shared.begin_close();
        self.worker.close();
        let sandbox = &self.shared.sandbox;
        drop(
            sandbox
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}

impl Drop for SandboxHandle {
    /// Lets the thread end, without waiting: JavaScript's collector calls this.
    fn drop(&mut self) {
        self.shared.begin_close();
        // A run under way keeps a share, and drops the sandbox when it has ended.
        reaper::reap(Arc::clone(&self.shared));
    }
}

/// Runs programs, one at a time.
#[derive(Debug)]
#[napi]
pub struct BindingSandbox {
    handle: Arc<SandboxHandle>,
}

#[napi]
impl BindingSandbox {
    /// Makes a sandbox on a platform.
    #[napi(catch_unwind, ts_return_type = "Promise<BindingSandbox>")]
    pub fn create<'env>(
        env: &'env Env,
        platform: &BindingPlatform,
        options: BindingSandboxOptions,
    ) -> napi::Result<PromiseRaw<'env, BindingSandbox>> {
        let machine = platform.machine().map_err(|error| error.into_js(env))?;
        let work = move || Ok(Sandbox::on(&machine, sandbox_options(options)?)?);
        promise::blocking_then(env, work, |env, sandbox| {
            let handle = Arc::new(SandboxHandle {
                shared: Arc::new(Shared {
                    state: Mutex::new(State {
                        running: false,
                        interrupter: Some(sandbox.interrupter()),
                    }),
                    sandbox: Mutex::new(Some(sandbox)),
                    exchange: Arc::default(),
                }),
                worker: Worker::new(WHAT),
            });
            stop_at_end_of_env(env, &handle)?;
            Ok(BindingSandbox { handle })
        })
    }

    /// Runs a program to its end. `ask` is called with each system call that the run wants asked
    /// about; each wants an `answer`.
    #[napi(catch_unwind)]
    pub fn run<'env>(
        &self,
        env: &'env Env,
        run: BindingRun,
        ask: Function<'_, BindingSystemCall, ()>,
    ) -> napi::Result<PromiseRaw<'env, BindingOutcome>> {
        let shared = Arc::clone(&self.handle.shared);
        let timeout = run.timeout_ms.map(milliseconds).transpose();
        let timeout = timeout.map_err(|error| error.into_js(env))?;
        let hook = match run.asked.as_slice() {
            [] => None,
            names => Some(Hook::new(env, names, &ask, &shared.exchange)?),
        };
        let start = || {
            let prepared = prepare(run)?;
            shared.begin()?;
            let thread = Arc::clone(&shared);
            let mut hook = hook;
            let sent = self.handle.worker.run(move || {
                let mut trace = prepared.trace;
                let run = Run {
                    stdin: prepared.stdin,
                    stdout: prepared.stdout,
                    stderr: prepared.stderr,
                    policy: hook.as_mut().map(|hook| hook as &mut dyn Policy),
                    observer: trace.as_mut().map(|trace| trace as &mut dyn Observer),
                    timeout,
                };
                let outcome = thread.with(|sandbox| sandbox.run(prepared.program, run))?;
                Ok(from_native(outcome))
            });
            if sent.is_err() {
                shared.end();
            }
            sent
        };
        let result = start().map_err(|error: BindingError| error.into_js(env))?;
        promise::settle(env, outcome(result))
    }

    /// Answers a question of the run under way.
    #[napi(catch_unwind)]
    pub fn answer(&self, question: u32, decision: BindingDecision) {
        let exchange = &self.handle.shared.exchange;
        exchange.answer(question, decision.into());
    }

    /// Ends the run under way, if there is one.
    #[napi(catch_unwind)]
    pub fn interrupt(&self) {
        self.handle.shared.interrupt();
    }

    /// Makes the sandbox as it was when it was made.
    #[napi(catch_unwind)]
    pub fn reset<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        let shared = &self.handle.shared;
        let start = || {
            shared.begin()?;
            let thread = Arc::clone(shared);
            let sent = self.handle.worker.run(move || thread.with(Sandbox::reset));
            if sent.is_err() {
                shared.end();
            }
            sent
        };
        let result = start().map_err(|error: BindingError| error.into_js(env))?;
        promise::settle(env, outcome(result))
    }

    /// Closes the sandbox; a run under way ends.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        self.handle.shared.begin_close();
        let handle = Arc::clone(&self.handle);
        promise::blocking(env, move || {
            handle.stop();
            // It may have been the last that kept its machine.
            reaper::wait_idle();
            Ok(())
        })
    }
}
