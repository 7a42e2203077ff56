//! The gate through which vCPUs enter an address space, and which is closed while its tables change.
//!
//! A vCPU passes it twice a switch, and it is open most of the time: each way is one atomic operation
//! then, and only a closed gate takes its lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use microvm_kvm::ImmediateExit;

use crate::error::Error;
use crate::page_tables::lock;

/// Nobody comes in: the tables are about to change, or the space was released.
const CLOSED: u64 = 1 << 63;
/// Nobody ever comes in again.
const RELEASED: u64 = 1 << 62;
const FLAGS: u64 = CLOSED | RELEASED;

#[derive(Debug, Default)]
pub struct Gate {
    /// How many vCPUs are inside, and the flags above, which change under the lock only.
    word: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    editors: usize,
    /// The vCPUs that have the tables loaded; all that are inside are among them.
    vcpus: Vec<(u64, ImmediateExit)>,
    /// Whether there was ever one, so that something may have been derived from the tables.
    used: bool,
}

impl Gate {
    /// Notes that a vCPU loads the tables, before it enters.
    pub fn admit(&self, vcpu: u64, exit: &ImmediateExit) {
        let mut state = self.lock();
        state.used = true;
        state.vcpus.push((vcpu, exit.clone()));
    }

    /// Notes that a vCPU has other tables; it does not run with these any more, and leaves if it
    /// has not yet.
    pub fn dismiss(&self, vcpu: u64) {
        self.lock().vcpus.retain(|(id, _)| *id != vcpu);
    }

    /// Whether any vCPU was ever admitted.
    pub fn was_used(&self) -> bool {
        self.lock().used
    }

    /// Lets a vCPU in that was admitted, once nobody changes the tables.
    #[inline]
    pub fn enter(&self) -> Result<(), Error> {
        if self.word.fetch_add(1, Ordering::SeqCst) & FLAGS == 0 {
            return Ok(());
        }
        self.wait_to_enter()
    }

    #[cold]
    fn wait_to_enter(&self) -> Result<(), Error> {
        loop {
            self.leave();
            let mut state = self.lock();
            while state.editors > 0 {
                state = self.wait(state);
            }
            if self.is_released() {
                return Err(Error::Released);
            }
            drop(state);
            if self.word.fetch_add(1, Ordering::SeqCst) & FLAGS == 0 {
                return Ok(());
            }
        }
    }

    /// Ends what [`Gate::enter`] began.
    #[inline]
    pub fn leave(&self) {
        let before = self.word.fetch_sub(1, Ordering::SeqCst);
        if before & FLAGS != 0 && before & !FLAGS == 1 {
            self.tell_last_left();
        }
    }

    #[cold]
    fn tell_last_left(&self) {
        // Those who wait for it look at the number under the lock.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Calls `edit` while no vCPU is inside.
    pub fn edit<R>(&self, edit: impl FnOnce() -> R) -> Result<R, Error> {
        let mut state = self.lock();
        state.editors += 1;
        let mut kicked = Ok(());
        if self.word.fetch_or(CLOSED, Ordering::SeqCst) & !FLAGS > 0 {
            // Those that have the tables and are elsewhere enter the guest once in vain.
            for (_, exit) in &state.vcpus {
                kicked = kicked.and(exit.request());
            }
        }
        while kicked.is_ok() && self.word.load(Ordering::SeqCst) & !FLAGS > 0 {
            state = self.wait(state);
        }
        drop(state);
        let result = kicked.map(|()| edit());
        let mut state = self.lock();
        state.editors -= 1;
        if state.editors == 0 {
            self.word.fetch_and(!CLOSED, Ordering::SeqCst);
        }
        self.changed.notify_all();
        drop(state);
        result.map_err(Error::kvm("Stopping the vCPUs of an address space"))
    }

    /// Lets nobody in any more.
    pub fn release(&self) {
        let _state = self.lock();
        self.word.fetch_or(RELEASED, Ordering::SeqCst);
    }

    pub fn is_released(&self) -> bool {
        self.word.load(Ordering::SeqCst) & RELEASED != 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn wait<'state>(&self, state: MutexGuard<'state, State>) -> MutexGuard<'state, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    #[test]
    fn nobody_is_inside_while_somebody_edits() {
        let gate = Gate::default();
        let (inside, edits) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        gate.enter().unwrap();
                        inside.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        gate.leave();
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let seen = gate.edit(|| inside.load(Ordering::SeqCst));
                        assert_eq!(seen.unwrap(), 0);
                        edits.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(edits.into_inner(), 4_000);
        assert_eq!(gate.word.into_inner(), 0);
    }

    #[test]
    fn a_released_gate_refuses_those_who_come_and_can_be_edited() {
        let gate = Gate::default();
        gate.enter().unwrap();
        gate.release();
        assert!(matches!(gate.enter(), Err(Error::Released)));
        thread::scope(|scope| {
            let editor = scope.spawn(|| gate.edit(|| ()));
            gate.leave();
            editor.join().unwrap().unwrap();
        });
        assert!(matches!(gate.enter(), Err(Error::Released)));
        assert!(gate.is_released() && !gate.was_used());
    }
}
