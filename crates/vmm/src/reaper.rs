//! Closing what is slow to close, away from the caller.
//!
//! Closing a virtual machine takes the kernel up to tens of milliseconds. A machine hands what it
//! has left to a thread of its own, which is gone when it has closed it.

use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

/// Threads that nobody has joined yet.
static THREADS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Drops `value` on a thread of its own; on this one if there can be no other.
pub fn reap<T: Send + 'static>(value: T) {
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    // Those that are done keep nothing but their stack; joining them does not wait.
    let (done, mut running): (Vec<_>, Vec<_>) =
        threads.drain(..).partition(JoinHandle::is_finished);
    join(done);
    // Where no thread can be made, the closure is dropped here and now, and `value` with it.
    let reaper = std::thread::Builder::new()
        .name("microvm-reaper".into())
        .spawn(move || drop(value));
    running.extend(reaper);
    *threads = running;
}

/// Waits until what was handed over so far has been dropped, and its threads are gone. Of several
/// callers at a time only the first one waits.
pub fn wait_idle() {
    let threads = std::mem::take(&mut *THREADS.lock().unwrap_or_else(PoisonError::into_inner));
    join(threads);
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // A panic while dropping has ended that thread; there is nothing to add here.
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_was_handed_over_is_dropped_when_the_wait_returns() {
        struct Count(Arc<AtomicUsize>);
        impl Drop for Count {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Arc::new(AtomicUsize::new(0));
        for _ in 0..10 {
            reap(Count(Arc::clone(&count)));
        }
        wait_idle();
        assert_eq!(count.load(Ordering::SeqCst), 10);
    }
}
