//! Processor time of one thread, for others to ask, also after its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What one thread has taken of the processors.
#[derive(Debug, Default)]
pub struct ThreadClock(Mutex<Clock>);

#[derive(Debug, Default)]
enum Clock {
    /// Nothing is counted yet.
    #[default]
    Waiting,
    /// The kernel's clock of the thread. It is the thread's as long as it is here: numbers of
    /// threads, and with them those of their clocks, are given out again.
    Running(libc::clockid_t),
    Ended(Duration),
}

/// The thread whose time is counted; dropped by it at its end.
#[derive(Debug)]
pub struct CountedThread {
    clock: Arc<ThreadClock>,
    // Another thread's end would be noted with that one's time.
    _of_this_thread: std::marker::PhantomData<*const ()>,
}

impl ThreadClock {
    /// Counts the calling thread, from its own start until the guard is dropped.
    #[must_use]
    pub fn count(self: &Arc<Self>) -> CountedThread {
        if let Some(id) = own_clock() {
            *self.clock() = Clock::Running(id);
        }
        CountedThread {
            clock: Arc::clone(self),
            _of_this_thread: std::marker::PhantomData,
        }
    }

    /// Time on a processor so far, in user mode, in the kernel and in guests.
    #[must_use]
    pub fn time(&self) -> Duration {
        // The thread cannot end meanwhile: it takes the lock before.
        match *self.clock() {
            Clock::Waiting => Duration::ZERO,
            Clock::Running(id) => read(id),
            Clock::Ended(time) => time,
        }
    }

    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CountedThread {
    fn drop(&mut self) {
        *self.clock.clock() = Clock::Ended(read(libc::CLOCK_THREAD_CPUTIME_ID));
    }
}

/// The calling thread's clock, by which other threads read it.
fn own_clock() -> Option<libc::clockid_t> {
    let mut id = 0;
    // SAFETY: the call takes nothing and always succeeds.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: the calling thread is alive, and `id` outlives the call, which writes nothing else.
    let result = unsafe { libc::pthread_getcpuclockid(this, &raw mut id) };
    (result == 0).then_some(id)
}

fn read(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes to `time` alone, which outlives the call; it refuses clocks that
    // it does not know.
    let result = unsafe { libc::clock_gettime(id, &raw mut time) };
    if result != 0 {
        return Duration::ZERO;
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    /// Works until this thread has had `time` of a processor.
    fn work(time: Duration) {
        let begun = read(libc::CLOCK_THREAD_CPUTIME_ID);
        let patience = Instant::now() + Duration::from_secs(60);
        while read(libc::CLOCK_THREAD_CPUTIME_ID) < begun + time {
            assert!(Instant::now() < patience, "the thread gets no time");
        }
    }

    #[test]
    fn the_time_of_another_thread_is_told_while_it_runs_and_after_its_end() {
        const WORK: Duration = Duration::from_millis(30);
        let clock = Arc::new(ThreadClock::default());
        assert_eq!(clock.time(), Duration::ZERO);
        let (worked, wait_for_work) = channel();
        let (end, wait_for_end) = channel::<()>();
        let thread = std::thread::spawn({
            let clock = Arc::clone(&clock);
            move || {
                let _counted = clock.count();
                work(WORK);
                worked.send(()).unwrap();
                wait_for_end.recv().unwrap();
                work(WORK);
            }
        });
        wait_for_work.recv().unwrap();
        let running = clock.time();
        assert!(running >= WORK, "{running:?}");
        // A thread that waits takes no time, however much this one works.
        work(WORK);
        assert!(clock.time() < running + WORK, "{:?}", clock.time());
        end.send(()).unwrap();
        thread.join().unwrap();
        let ended = clock.time();
        assert!(ended >= 2 * WORK, "{ended:?}");
        work(WORK);
        assert_eq!(clock.time(), ended, "an ended thread's time stands");
    }
}
