//! The vCPUs of a machine that nobody uses just now.
//!
//! A thread gets the vCPU that it had before, as KVM is slow when a vCPU changes threads (it waits
//! for a grace period); else a new one, as long as there are few; else anybody's idle one; else it
//! waits. Those who wait get vCPUs in the order in which they came: a vCPU that is put back goes to
//! the first of them, never to a newcomer.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::Error;
use crate::interrupts::{Interrupts, Request};
use crate::page_tables::lock;
use crate::vcpu::Vcpu;

/// Idle vCPUs, how many there are in all, and who waits for one.
#[derive(Debug)]
pub struct Pool {
    state: Mutex<State>,
    /// First number that no vCPU can have.
    numbers: u64,
}

#[derive(Debug)]
struct State {
    // Moved twice a switch, and large.
    #[allow(clippy::vec_box)]
    idle: Vec<Box<Vcpu>>,
    /// How many there are, and may be.
    live: u64,
    most: u64,
    /// Number of the next one. None is used twice: KVM keeps a vCPU as long as the machine.
    next: u64,
    /// Only while none is idle and no other can be made.
    waiting: VecDeque<Arc<Waiter>>,
}

/// Somebody who waits for a vCPU.
#[derive(Debug, Default)]
pub struct Waiter {
    state: Mutex<WaiterState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WaiterState {
    vcpu: Option<Box<Vcpu>>,
    woken: bool,
}

/// What [`Pool::take`] gives.
#[derive(Debug)]
pub enum Taken {
    Vcpu(Box<Vcpu>),
    /// Nothing, for the switch is to end.
    Ended(Request),
}

/// A number for this thread that no other thread ever has.
pub fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static THREAD: Cell<u64> = const { Cell::new(0) };
    }
    THREAD.with(|thread| {
        if thread.get() == 0 {
            thread.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        thread.get()
    })
}

impl Pool {
    /// A pool of at most `most` vCPUs, whose numbers are below `numbers`.
    pub fn new(most: u64, numbers: u64) -> Self {
        Self {
            state: Mutex::new(State {
                idle: Vec::new(),
                live: 0,
                most,
                next: 0,
                waiting: VecDeque::new(),
            }),
            numbers,
        }
    }

    /// Most vCPUs that there will be.
    pub fn most(&self) -> u64 {
        lock(&self.state).most
    }

    /// Takes a vCPU: `resident` if it is idle, else as the module says; `make` makes the one of
    /// this number. A request to `interrupts` ends the wait.
    pub fn take(
        &self,
        resident: Option<u64>,
        interrupts: &Interrupts,
        make: impl Fn(u64) -> Result<Vcpu, Error>,
    ) -> Result<Taken, Error> {
        let thread = this_thread();
        if let Some(id) = resident
            && let Some(mut vcpu) = self.take_idle(id)
        {
            vcpu.thread = thread;
            return Ok(Taken::Vcpu(vcpu));
        }
        self.take_any(thread, interrupts, make)
    }

    fn take_any(
        &self,
        thread: u64,
        interrupts: &Interrupts,
        make: impl Fn(u64) -> Result<Vcpu, Error>,
    ) -> Result<Taken, Error> {
        loop {
            let waiter = {
                let mut state = lock(&self.state);
                if let Some(mut vcpu) = self.take_now(&mut state, thread, &make)? {
                    vcpu.thread = thread;
                    return Ok(Taken::Vcpu(vcpu));
                }
                let waiter = Arc::<Waiter>::default();
                state.waiting.push_back(Arc::clone(&waiter));
                waiter
            };
            // The lock is free: a request wakes the waiter under the lock of the interrupts.
            let mut request = interrupts.begin_wait(&waiter);
            if request == Request::Other {
                waiter.wait();
                request = interrupts.end_wait();
            }
            lock(&self.state)
                .waiting
                .retain(|other| !Arc::ptr_eq(other, &waiter));
            // From here on nobody gives it anything.
            let given = lock(&waiter.state).vcpu.take();
            match (given, request) {
                (Some(mut vcpu), Request::Other) => {
                    vcpu.thread = thread;
                    return Ok(Taken::Vcpu(vcpu));
                }
                (None, Request::Other) => {}
                (given, request) => {
                    if let Some(mut vcpu) = given {
                        // Somebody may wait for the state in it, as for any that is taken.
                        vcpu.evict(None);
                        self.put(vcpu);
                    }
                    return Ok(Taken::Ended(request));
                }
            }
        }
    }

    fn take_now(
        &self,
        state: &mut State,
        thread: u64,
        make: impl Fn(u64) -> Result<Vcpu, Error>,
    ) -> Result<Option<Box<Vcpu>>, Error> {
        let position = state.idle.iter().position(|vcpu| vcpu.thread == thread);
        if let Some(position) = position {
            return Ok(Some(state.idle.swap_remove(position)));
        }
        if state.live < state.most && state.next < self.numbers {
            let id = state.next;
            // Whether KVM has made it when the rest fails, nobody tells.
            state.next += 1;
            match make(id) {
                Ok(vcpu) => {
                    state.live += 1;
                    return Ok(Some(Box::new(vcpu)));
                }
                Err(error) if state.live == 0 => return Err(error),
                // Those that are there have to do.
                Err(_) => state.most = state.live,
            }
        }
        if state.live == 0 {
            return Err(Error::Stopped {
                reason: "none of the machine's vCPUs can be used any more".to_owned(),
            });
        }
        Ok((!state.idle.is_empty()).then(|| state.idle.swap_remove(0)))
    }

    /// Takes this vCPU, if it is idle.
    #[inline]
    pub fn take_idle(&self, id: u64) -> Option<Box<Vcpu>> {
        let mut state = lock(&self.state);
        let position = state.idle.iter().position(|vcpu| vcpu.id == id)?;
        Some(state.idle.swap_remove(position))
    }

    /// Puts a vCPU back; one that is retired is closed.
    pub fn put(&self, mut vcpu: Box<Vcpu>) {
        let mut state = lock(&self.state);
        if vcpu.is_retired() {
            state.live -= 1;
            // One of them may make another, or all have to hear that there is none.
            for waiter in std::mem::take(&mut state.waiting) {
                waiter.wake();
            }
            drop(state);
            return;
        }
        // Under the lock: a release looks at the idle ones only.
        vcpu.drop_released();
        match state.waiting.pop_front() {
            Some(waiter) => waiter.give(vcpu),
            None => state.idle.push(vcpu),
        }
    }

    /// Has idle vCPUs forget page tables that were released.
    pub fn drop_released(&self) {
        for vcpu in &mut lock(&self.state).idle {
            vcpu.drop_released();
        }
    }

    /// How many vCPUs there are.
    pub fn made(&self) -> u64 {
        lock(&self.state).live
    }
}

impl Waiter {
    /// Ends the wait without a vCPU.
    pub fn wake(&self) {
        lock(&self.state).woken = true;
        self.changed.notify_one();
    }

    fn give(&self, vcpu: Box<Vcpu>) {
        lock(&self.state).vcpu = Some(vcpu);
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut state = lock(&self.state);
        while !state.woken && state.vcpu.is_none() {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_a_vcpu_that_could_not_be_made_is_not_used_again() {
        let pool = Pool::new(1, 3);
        let numbers = Mutex::new(Vec::new());
        let interrupts = Interrupts::default();
        let take = || {
            pool.take(None, &interrupts, |id| {
                lock(&numbers).push(id);
                Err(Error::unsupported("test"))
            })
        };
        for _ in 0..3 {
            assert!(matches!(take(), Err(Error::Unsupported { .. })));
        }
        // Rather than waiting for what nobody can put back.
        assert!(matches!(take(), Err(Error::Stopped { .. })));
        assert_eq!(*lock(&numbers), [0, 1, 2]);
        assert_eq!((pool.made(), pool.most()), (0, 1));
    }
}
