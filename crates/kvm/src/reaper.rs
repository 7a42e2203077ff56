//! Closing what is slow to close, away from the caller.
//!
//! Closing a virtual machine takes the kernel up to tens of milliseconds. Who owns one hands what
//! is left of it to a thread of its own, which is gone when it has closed it. Callers are the
//! monitor and the ring-3 platform.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// A thread that drops something; empty once it was joined. Whoever joins it holds the lock, so
/// that all who wait for it return when it is gone.
type Reaper = Arc<Mutex<Option<JoinHandle<()>>>>;

/// Threads that nobody has joined yet.
static REAPERS: Mutex<Vec<Reaper>> = Mutex::new(Vec::new());

/// Drops `value` on a thread of its own; on this one if there can be no other.
pub fn reap<T: Send + 'static>(value: T) {
    // Where no thread can be made, the closure is dropped here and now, and `value` with it.
    let reaper = std::thread::Builder::new()
        .name("microvm-reaper".into())
        .spawn(move || drop(value));
    let mut reapers = lock(&REAPERS);
    // One that is being joined is locked: it may stay until the next time.
    reapers.retain(|reaper| match reaper.try_lock() {
        Ok(mut reaper) => !join_if_finished(&mut reaper),
        Err(_) => true,
    });
    reapers.extend(reaper.ok().map(|thread| Arc::new(Mutex::new(Some(thread)))));
}

/// Waits until what was handed over so far has been dropped, and its threads are gone.
pub fn wait_idle() {
    let reapers = lock(&REAPERS).clone();
    for reaper in &reapers {
        // The lock is kept while it is joined: others who wait come out when it is gone.
        let mut reaper = lock(reaper);
        if let Some(thread) = reaper.take() {
            join(thread);
        }
    }
    lock(&REAPERS).retain(|reaper| !reapers.iter().any(|joined| Arc::ptr_eq(joined, reaper)));
}

/// True when the thread is gone.
fn join_if_finished(reaper: &mut Option<JoinHandle<()>>) -> bool {
    match reaper.take_if(|thread| thread.is_finished()) {
        // It keeps nothing but its stack: this does not wait.
        Some(thread) => join(thread),
        None => return reaper.is_none(),
    }
    true
}

fn join(thread: JoinHandle<()>) {
    // A panic while dropping has ended that thread; there is nothing to add here.
    let _ = thread.join();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn everyone_who_waits_returns_when_it_is_dropped() {
        struct Slow(Arc<AtomicUsize>, std::sync::mpsc::Receiver<()>);
        impl Drop for Slow {
            fn drop(&mut self) {
                let _ = self.1.recv();
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Arc::new(AtomicUsize::new(0));
        let (release, released) = std::sync::mpsc::channel();
        reap(Slow(Arc::clone(&count), released));
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let count = Arc::clone(&count);
                std::thread::spawn(move || {
                    wait_idle();
                    count.load(Ordering::SeqCst)
                })
            })
            .collect();
        release.send(()).unwrap();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 1);
        }
    }
}
