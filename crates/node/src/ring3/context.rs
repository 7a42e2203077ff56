//! A thread of a program.
//!
//! Switches happen on a thread of their own, which holds the context meanwhile. The JavaScript
//! thread never waits for it: calls fail with `ERR_RING3_BUSY` then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use microvm_kvm::reaper;
use microvm_ring3::{Context, Interrupter};
use napi::Env;
use napi::bindgen_prelude::{PromiseRaw, Uint8Array};
use napi_derive::napi;

use super::address_space::BindingAddressSpace;
use super::exit::{
    BindingRing3Exit, BindingRing3Registers, BindingSegmentBases, BindingSwitchOptions,
    from_native, switch_options,
};
use super::worker::{Worker, outcome};
use super::{busy, closed};
use crate::cleanup::{Stop, stop_at_end_of_env};
use crate::error::BindingError;
use crate::field::Field;
use crate::promise;

const WHAT: &str = "context";

/// What JavaScript's object holds: the context, and the thread that switches to it.
#[derive(Debug)]
struct ContextHandle {
    shared: Arc<Shared>,
    worker: Worker,
}

/// What the thread holds: not the handle, so that it ends when the handle is collected.
#[derive(Debug)]
struct Shared {
    context: Mutex<Option<Context>>,
    interrupter: Interrupter,
    /// Whether a switch has begun whose exit has not been told yet.
    running: AtomicBool,
    closed: AtomicBool,
}

impl Shared {
    /// Gives `f` the context, unless it runs or is closed.
    fn with<R>(
        &self,
        f: impl FnOnce(&mut Context) -> Result<R, BindingError>,
    ) -> Result<R, BindingError> {
        let mut context = match self.context.try_lock() {
            Ok(context) => context,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(busy("The context is running")),
        };
        match &mut *context {
            Some(context) if !self.closed.load(Ordering::SeqCst) => f(context),
            _ => Err(closed(WHAT)),
        }
    }

    /// Does `work` with the context, on its thread. Closed meanwhile, it is interrupted, whether the
    /// switch has begun or not.
    fn run<R>(
        &self,
        work: impl FnOnce(&mut Context) -> Result<R, BindingError>,
    ) -> Result<R, BindingError> {
        let mut context = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        context.as_mut().map_or_else(|| Err(closed(WHAT)), work)
    }

    /// Refuses switches from now on, and ends the one under way.
    fn begin_close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // Where the thread cannot be signalled the switch still ends, at its next exit.
        let _ = self.interrupter.interrupt();
    }
}

impl Stop for ContextHandle {
    fn stop(&self) {
        self.shared.begin_close();
        self.worker.close();
        let context = &self.shared.context;
        drop(
            context
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}

impl Drop for ContextHandle {
    /// Lets the thread end, without waiting: JavaScript's collector calls this.
    fn drop(&mut self) {
        self.shared.begin_close();
    }
}

/// A thread of a program.
#[derive(Debug)]
#[napi]
pub struct BindingContext {
    handle: Arc<ContextHandle>,
}

#[napi]
impl BindingContext {
    /// Runs the program, on the context's own thread, until it wants something.
    #[napi(catch_unwind)]
    pub fn switch<'env>(
        &self,
        env: &'env Env,
        space: &BindingAddressSpace,
        registers: BindingRing3Registers,
        options: BindingSwitchOptions,
    ) -> napi::Result<PromiseRaw<'env, BindingRing3Exit>> {
        let start = || {
            let space = space.share()?;
            let options = switch_options(&options)?;
            let mut registers = registers.into_native("registers")?;
            if self.handle.shared.closed.load(Ordering::SeqCst) {
                return Err(closed(WHAT));
            }
            if self.handle.shared.running.swap(true, Ordering::SeqCst) {
                return Err(busy("The context is running already"));
            }
            let shared = Arc::clone(&self.handle.shared);
            let sent = self.handle.worker.run(move || {
                let exit =
                    shared.run(|context| Ok(context.switch(&space, &mut registers, options)?));
                // First of all: letting go of the space may take its time.
                shared.running.store(false, Ordering::SeqCst);
                Ok(from_native(exit?, registers))
            });
            if sent.is_err() {
                self.handle.shared.running.store(false, Ordering::SeqCst);
            }
            sent
        };
        let exit = start().map_err(|error| error.into_js(env))?;
        promise::settle(env, outcome(exit))
    }

    /// Ends the switch under way, or else the next one.
    #[napi(catch_unwind)]
    pub fn interrupt(&self, env: Env) -> napi::Result<()> {
        let interrupted = self.handle.shared.interrupter.interrupt();
        interrupted.map_err(|error| BindingError::from(error).into_js(&env))
    }

    /// Takes an interrupt back that has not ended a switch; tells whether there was one.
    #[napi(catch_unwind)]
    pub fn withdraw_interrupt(&self) -> bool {
        self.handle.shared.interrupter.withdraw()
    }

    /// Reads the segment bases.
    #[napi(catch_unwind)]
    pub fn segment_bases(&self, env: Env) -> napi::Result<BindingSegmentBases> {
        self.with(&env, |context| {
            Ok(Field::from_native(context.segment_bases()?))
        })
    }

    /// Sets the segment bases.
    #[napi(catch_unwind)]
    pub fn set_segment_bases(&self, env: Env, bases: BindingSegmentBases) -> napi::Result<()> {
        self.with(&env, |context| {
            Ok(context.set_segment_bases(bases.into_native("bases")?)?)
        })
    }

    /// Reads the extended state; empty where it is that of a reset.
    #[napi(catch_unwind)]
    pub fn extended_state(&self, env: Env) -> napi::Result<Uint8Array> {
        self.with(&env, |context| {
            Ok(Uint8Array::new(context.extended_state()?))
        })
    }

    /// Sets the extended state.
    #[napi(catch_unwind)]
    pub fn set_extended_state(&self, env: Env, state: &[u8]) -> napi::Result<()> {
        self.with(&env, |context| Ok(context.set_extended_state(state)?))
    }

    /// Closes the context; a switch under way ends.
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

    fn with<R>(
        &self,
        env: &Env,
        f: impl FnOnce(&mut Context) -> Result<R, BindingError>,
    ) -> napi::Result<R> {
        let result = self.handle.shared.with(f);
        result.map_err(|error| error.into_js(env))
    }
}

impl BindingContext {
    pub(super) fn new(env: &Env, context: Context) -> napi::Result<Self> {
        let handle = Arc::new(ContextHandle {
            shared: Arc::new(Shared {
                interrupter: context.interrupter(),
                context: Mutex::new(Some(context)),
                running: AtomicBool::new(false),
                closed: AtomicBool::new(false),
            }),
            worker: Worker::new(WHAT),
        });
        stop_at_end_of_env(env, &handle)?;
        Ok(Self { handle })
    }
}
