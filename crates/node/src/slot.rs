//! Something that a JavaScript object holds until it is no longer needed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cleanup::Stop;

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

    /// Stops what it holds, then gives it up. A call that finds another one stopping returns when
    /// that is done, and not before: emptied first, the slot would tell it that all is over.
    pub(crate) fn stop(&self)
    where
        T: Stop,
    {
        if let Some(thing) = self.get() {
            thing.stop();
            self.empty();
        }
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
