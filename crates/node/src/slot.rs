//! Something that a JavaScript object holds until it is no longer needed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared ownership that can be given up early. JavaScript objects live until they are collected,
/// which may be never; threads and descriptors must not.
#[derive(Debug)]
pub(crate) struct Slot<T>(Arc<Mutex<Option<Arc<T>>>>);

impl<T> Slot<T> {
    pub(crate) fn new(thing: Arc<T>) -> Self {
        Self(Arc::new(Mutex::new(Some(thing))))
    }

    /// What it holds, if it still does.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        self.lock().clone()
    }

    /// Gives it up; it is gone when calls that are under way have ended.
    pub(crate) fn empty(&self) -> Option<Arc<T>> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
