//! The vCPUs of a machine that nobody uses just now.
//!
//! A thread gets the vCPU that it had before, as KVM is slow when a vCPU changes threads (it waits
//! for a grace period); else a new one, as long as there are few; else anybody's idle one; else it
//! waits.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::Error;
use crate::page_tables::lock;
use crate::vcpu::Vcpu;

/// Idle vCPUs, and how many there are in all.
#[derive(Debug)]
pub struct Pool {
    most: u64,
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    // Moved twice a switch, and large.
    #[allow(clippy::vec_box)]
    idle: Vec<Box<Vcpu>>,
    made: u64,
    waiting: usize,
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
    pub fn new(most: u64) -> Self {
        Self {
            most,
            state: Mutex::default(),
            idle: Condvar::new(),
        }
    }

    /// Most vCPUs that it makes.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Takes a vCPU: `resident` if it is idle, else as the module says; `make` makes the one of
    /// this number.
    pub fn take(
        &self,
        resident: Option<u64>,
        make: impl Fn(u64) -> Result<Vcpu, Error>,
    ) -> Result<Box<Vcpu>, Error> {
        let thread = this_thread();
        let mut state = lock(&self.state);
        loop {
            let idle = &state.idle;
            let position = resident
                .and_then(|id| idle.iter().position(|vcpu| vcpu.id == id))
                .or_else(|| idle.iter().position(|vcpu| vcpu.thread == thread));
            let position = position.or_else(|| {
                let none_new = state.made >= self.most;
                (none_new && !idle.is_empty()).then_some(0)
            });
            if let Some(position) = position {
                let mut vcpu = state.idle.swap_remove(position);
                vcpu.thread = thread;
                return Ok(vcpu);
            }
            if state.made < self.most {
                let id = state.made;
                state.made += 1;
                // Made under the lock: numbers have to be used in order, or given back.
                let made = make(id);
                if made.is_err() {
                    state.made -= 1;
                }
                return made.map(|mut vcpu| {
                    vcpu.thread = thread;
                    Box::new(vcpu)
                });
            }
            state.waiting += 1;
            state = self
                .idle
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    /// Takes this vCPU, if it is idle.
    pub fn take_idle(&self, id: u64) -> Option<Box<Vcpu>> {
        let mut state = lock(&self.state);
        let position = state.idle.iter().position(|vcpu| vcpu.id == id)?;
        Some(state.idle.swap_remove(position))
    }

    /// Puts a vCPU back.
    pub fn put(&self, mut vcpu: Box<Vcpu>) {
        vcpu.drop_released();
        let mut state = lock(&self.state);
        if vcpu.is_retired() {
            return;
        }
        state.idle.push(vcpu);
        if state.waiting > 0 {
            self.idle.notify_one();
        }
    }

    /// Has idle vCPUs forget page tables that were released.
    pub fn drop_released(&self) {
        for vcpu in &mut lock(&self.state).idle {
            vcpu.drop_released();
        }
    }

    /// How many vCPUs were made.
    pub fn made(&self) -> u64 {
        lock(&self.state).made
    }
}
