//! The handles of crate `microvm-kvm`, for `@hybrid/microvm/kvm`.
//!
//! A handle can be closed before JavaScript collects it; from then on it answers with
//! `ERR_KVM_CLOSED`. Closing a machine or a vCPU may take the kernel tens of milliseconds, so it
//! happens off the event loop and comes back as a promise.

mod exit;
mod memory_region;
mod shared_cpu;
mod state;
mod system;
mod virtual_cpu;
mod virtual_machine;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::BindingError;

/// Something that can be closed while JavaScript still holds it.
#[derive(Debug)]
struct Closable<T> {
    what: &'static str,
    value: Mutex<Option<T>>,
}

impl<T> Closable<T> {
    fn new(what: &'static str, value: T) -> Self {
        Self {
            what,
            value: Mutex::new(Some(value)),
        }
    }

    /// Gives `f` the value, unless it was closed.
    fn with<R, E: Into<BindingError>>(
        &self,
        f: impl FnOnce(&T) -> Result<R, E>,
    ) -> Result<R, BindingError> {
        match &*lock(&self.value) {
            Some(value) => f(value).map_err(Into::into),
            None => Err(closed(self.what)),
        }
    }

    /// Takes the value, to be dropped wherever that may take its time.
    fn close(&self) -> Option<T> {
        lock(&self.value).take()
    }
}

/// The failure of a call on something that was closed.
fn closed(what: &str) -> BindingError {
    BindingError::coded("ERR_KVM_CLOSED", format!("The {what} is closed"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
