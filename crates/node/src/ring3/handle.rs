//! Something that can be closed while JavaScript still holds it.

use std::sync::{Arc, Mutex, PoisonError};

use microvm_kvm::reaper;

use super::closed;
use crate::error::BindingError;

/// A share of a thing of the platform. Letting go of the last one may take the kernel some time or
/// wait for a vCPU: a collected handle leaves that to the reaper.
#[derive(Debug)]
pub(super) struct Handle<T: Send + Sync + 'static> {
    what: &'static str,
    thing: Mutex<Option<Arc<T>>>,
}

impl<T: Send + Sync + 'static> Handle<T> {
    pub(super) fn new(what: &'static str, thing: Arc<T>) -> Self {
        Self {
            what,
            thing: Mutex::new(Some(thing)),
        }
    }

    /// The thing, unless it was closed.
    pub(super) fn get(&self) -> Result<Arc<T>, BindingError> {
        let thing = self.thing.lock().unwrap_or_else(PoisonError::into_inner);
        thing.clone().ok_or_else(|| closed(self.what))
    }

    /// Takes the thing, to be dropped wherever that may take its time.
    pub(super) fn close(&self) -> Option<Arc<T>> {
        let mut thing = self.thing.lock().unwrap_or_else(PoisonError::into_inner);
        thing.take()
    }
}

impl<T: Send + Sync + 'static> Drop for Handle<T> {
    fn drop(&mut self) {
        if let Some(thing) = self.close() {
            // Others may still have a share; then this ends at once.
            reaper::reap(thing);
        }
    }
}
