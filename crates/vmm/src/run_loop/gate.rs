//! What the vCPUs of a machine are to do, and why they ended.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::ExitReason;

/// Makes one vCPU leave the guest; its thread then asks the gate.
pub type Kick = Box<dyn Fn() + Send + Sync>;

/// What a vCPU does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Enter the guest.
    Run,
    /// Make its state complete, then [`Passage::park`].
    Park,
    /// Leave for good.
    End,
}

/// Stands between the vCPU threads and the machine's owner.
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pause: bool,
    /// Set once; from then on vCPUs end.
    reason: Option<ExitReason>,
    kicks: Vec<Kick>,
    /// vCPUs that have entered and not left.
    inside: usize,
    /// vCPUs among them that wait for the end of a pause.
    parked: usize,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Gate")
            .field("pause", &state.pause)
            .field("reason", &state.reason)
            .field("inside", &state.inside)
            .field("parked", &state.parked)
            .finish_non_exhaustive()
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A gate that lets vCPUs run.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Lets a vCPU in. `kick` has to make it leave the guest, now or as soon as it enters.
    #[must_use]
    pub fn enter(self: &Arc<Self>, kick: Kick) -> Passage {
        let mut state = self.lock();
        state.kicks.push(kick);
        state.inside += 1;
        Passage {
            gate: Arc::clone(self),
        }
    }

    /// Ends the machine for `reason`. The first reason stays.
    pub fn finish(&self, reason: ExitReason) {
        let mut state = self.lock();
        if state.reason.is_none() {
            state.reason = Some(reason);
            self.notify(&state);
        }
    }

    /// Makes every vCPU wait outside of the guest, and returns when all do. `false`: the machine
    /// has ended, or ended meanwhile, or was resumed by another thread.
    pub fn pause(&self) -> bool {
        let mut state = self.lock();
        if state.reason.is_some() {
            return false;
        }
        state.pause = true;
        self.notify(&state);
        while state.pause && state.reason.is_none() && state.parked < state.inside {
            state = self.wait_on(state);
        }
        state.pause && state.reason.is_none()
    }

    /// Ends a pause. `false`: the machine has ended.
    pub fn resume(&self) -> bool {
        let mut state = self.lock();
        state.pause = false;
        self.changed.notify_all();
        state.reason.is_none()
    }

    /// Why the machine ended, if it did.
    #[must_use]
    pub fn reason(&self) -> Option<ExitReason> {
        self.lock().reason.clone()
    }

    /// Waits until the machine has ended and no vCPU can run any more.
    #[must_use]
    pub fn wait(&self) -> ExitReason {
        let mut state = self.lock();
        loop {
            if let Some(reason) = state.reason.as_ref().filter(|_| state.inside == 0) {
                return reason.clone();
            }
            state = self.wait_on(state);
        }
    }

    /// Wakes all who wait, and makes the vCPUs leave the guest.
    fn notify(&self, state: &State) {
        self.changed.notify_all();
        for kick in &state.kicks {
            kick();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the state is complete in itself; a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_on<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A vCPU that is inside the gate. Dropping it means that the vCPU never runs again.
#[derive(Debug)]
pub struct Passage {
    gate: Arc<Gate>,
}

impl Passage {
    /// What to do next; to be asked before the first run and whenever the vCPU was made to leave.
    #[must_use]
    pub fn turn(&self) -> Turn {
        self.gate.lock().turn()
    }

    /// Counts as paused until the pause ends.
    pub fn park(&self) {
        let gate = &self.gate;
        let mut state = gate.lock();
        if state.turn() != Turn::Park {
            return;
        }
        state.parked += 1;
        gate.changed.notify_all();
        while state.turn() == Turn::Park {
            state = gate.wait_on(state);
        }
        state.parked -= 1;
    }

    /// As [`Gate::finish`].
    pub fn finish(&self, reason: ExitReason) {
        self.gate.finish(reason);
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.inside -= 1;
        if std::thread::panicking() && state.reason.is_none() {
            state.reason = Some(ExitReason::Failed("A vCPU thread panicked".into()));
            self.gate.notify(&state);
        }
        self.gate.changed.notify_all();
    }
}

impl State {
    fn turn(&self) -> Turn {
        if self.reason.is_some() {
            Turn::End
        } else if self.pause {
            Turn::Park
        } else {
            Turn::Run
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::{self, JoinHandle};

    use super::*;

    /// A vCPU whose guest only waits to be kicked. Reports every entry.
    fn vcpu(gate: &Arc<Gate>, entries: mpsc::Sender<()>) -> JoinHandle<()> {
        let (kick, kicked) = mpsc::channel();
        let passage = gate.enter(Box::new(move || {
            let _ = kick.send(());
        }));
        thread::spawn(move || {
            loop {
                match passage.turn() {
                    Turn::Run => {
                        let _ = entries.send(());
                        kicked.recv().unwrap();
                    }
                    Turn::Park => passage.park(),
                    Turn::End => return,
                }
            }
        })
    }

    fn machine(count: usize) -> (Arc<Gate>, Vec<JoinHandle<()>>, mpsc::Receiver<()>) {
        let gate = Arc::new(Gate::new());
        let (entries, entered) = mpsc::channel();
        let threads = (0..count).map(|_| vcpu(&gate, entries.clone())).collect();
        for _ in 0..count {
            entered.recv().unwrap();
        }
        (gate, threads, entered)
    }

    fn join(threads: Vec<JoinHandle<()>>) {
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn the_first_reason_stays_and_everyone_leaves() {
        let (gate, threads, _entered) = machine(4);
        gate.finish(ExitReason::PowerOff);
        gate.finish(ExitReason::Stopped);
        assert_eq!(gate.wait(), ExitReason::PowerOff);
        join(threads);
    }

    #[test]
    fn a_pause_returns_when_nobody_runs_and_a_resume_lets_them_in_again() {
        let (gate, threads, entered) = machine(4);
        for _ in 0..100 {
            assert!(gate.pause());
            assert_eq!(gate.lock().parked, 4);
            assert!(entered.try_recv().is_err());
            assert!(gate.resume());
            for _ in 0..4 {
                entered.recv().unwrap();
            }
        }
        gate.finish(ExitReason::Stopped);
        join(threads);
    }

    #[test]
    fn an_end_ends_a_pause() {
        let (gate, threads, _entered) = machine(2);
        assert!(gate.pause());
        gate.finish(ExitReason::Stopped);
        assert_eq!(gate.wait(), ExitReason::Stopped);
        assert!(!gate.pause());
        assert!(!gate.resume());
        join(threads);
    }

    #[test]
    fn a_panic_of_one_ends_all() {
        let (gate, threads, _entered) = machine(2);
        let passage = gate.enter(Box::new(|| ()));
        let panicking = thread::spawn(move || {
            let _passage = passage;
            panic!("on purpose");
        });
        assert!(panicking.join().is_err());
        assert!(matches!(gate.wait(), ExitReason::Failed(_)));
        join(threads);
    }

    #[test]
    fn pauses_resumes_and_an_end_from_many_threads_leave_nobody_behind() {
        let (gate, threads, _entered) = machine(3);
        let owners: Vec<_> = (0..4)
            .map(|number| {
                let gate = Arc::clone(&gate);
                thread::spawn(move || {
                    for _ in 0..50 {
                        if number % 2 == 0 {
                            gate.pause();
                        }
                        gate.resume();
                    }
                })
            })
            .collect();
        join(owners);
        gate.finish(ExitReason::Stopped);
        assert_eq!(gate.wait(), ExitReason::Stopped);
        join(threads);
    }
}
