//! Ending a run from outside: interrupts, and the thread that ends runs in time.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::frames::lock;

/// Ends a sandbox's run, from any thread; clones reach the same sandbox.
#[derive(Clone, Debug)]
pub struct Interrupter {
    pub(crate) bell: Arc<Bell>,
}

impl Interrupter {
    /// Ends the run that is under way, or else the next one: its outcome is `interrupted`.
    /// [`Sandbox::reset`](crate::Sandbox::reset) takes back what no run has taken.
    pub fn interrupt(&self) {
        lock(&self.bell.state).requested = true;
        self.bell.ring();
    }

    /// Takes back an interrupt that no run has taken, and tells whether there was one. Between two
    /// runs only: for callers whose run ended by itself at the moment in which they interrupted it.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        self.bell.take()
    }
}

/// What makes a run look whether it is to end.
#[derive(Debug)]
pub struct Bell {
    state: Mutex<State>,
    /// For runs that wait in a system call.
    event: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    requested: bool,
    /// Whether `event` can be read: its writers and readers have the lock.
    rung: bool,
    /// The context that runs.
    context: Option<microvm_ring3::Interrupter>,
}

impl Bell {
    pub fn new() -> Result<Self, Errno> {
        Ok(Self {
            state: Mutex::default(),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    fn ring(&self) {
        let mut state = lock(&self.state);
        if let Some(context) = &state.context {
            // Where its thread cannot be signalled, its next switch ends.
            let _ = context.interrupt();
        }
        if !std::mem::replace(&mut state.rung, true) {
            // It can only fail where it has rung billions of times.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Begins a run.
    pub fn begin(&self, context: microvm_ring3::Interrupter) {
        lock(&self.state).context = Some(context);
    }

    /// Ends it. An interrupt that it has not taken is the next one's.
    pub fn end(&self) {
        lock(&self.state).context = None;
    }

    /// Takes an interrupt, if there was one, and stops ringing.
    pub fn take(&self) -> bool {
        let mut state = lock(&self.state);
        if std::mem::take(&mut state.rung) {
            let _ = rustix::io::read(&self.event, &mut [0; 8]);
        }
        std::mem::take(&mut state.requested)
    }

    /// Whether an interrupt is waiting to be taken.
    pub fn is_requested(&self) -> bool {
        lock(&self.state).requested
    }

    /// Waits until one of these is ready, the time is over, or it rings. Also returns where the
    /// wait is disturbed: the caller looks.
    pub fn wait<'fd>(&'fd self, fds: &mut Vec<PollFd<'fd>>, time: Option<Duration>) {
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        fds.push(PollFd::new(&self.event, PollFlags::IN));
        // A few descriptors at most, all of them open: only a signal can make it fail.
        let _ = poll(fds, time.as_ref());
        fds.pop();
    }
}

/// Bells that no sandbox has any more: a descriptor takes longer to make than much of a run.
#[derive(Debug, Default)]
pub struct Bells {
    spare: Mutex<Vec<Arc<Bell>>>,
}

impl Bells {
    /// How many are kept.
    const MOST: usize = 8;

    /// One that does not ring, and that nobody else has.
    pub fn take(&self) -> Result<Arc<Bell>, Errno> {
        match lock(&self.spare).pop() {
            Some(bell) => Ok(bell),
            None => Bell::new().map(Arc::new),
        }
    }

    /// Keeps the bell of a sandbox that ends, unless somebody has it who may ring it yet.
    pub fn give_back(&self, bell: &mut Arc<Bell>) {
        if Arc::get_mut(bell).is_none() {
            return;
        }
        bell.take();
        let mut spare = lock(&self.spare);
        if spare.len() < Self::MOST {
            spare.push(Arc::clone(bell));
        }
    }
}

/// When something is to ring; the number keeps two of the same instant apart.
type Alarm = (Instant, u64);

/// The thread that rings bells in time. It is made when the first run has a limit.
#[derive(Debug, Default)]
pub struct Alarms {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bells: BTreeMap<Alarm, Arc<Bell>>,
    next: u64,
    stop: bool,
    /// When the thread wakes by itself.
    wakes: Option<Instant>,
}

/// A bell that will ring, unless this is dropped before.
#[derive(Debug)]
pub struct Armed<'alarms> {
    alarms: &'alarms Alarms,
    alarm: Alarm,
}

impl Alarms {
    /// Has a bell ring at an instant.
    pub fn arm(&self, instant: Instant, bell: &Arc<Bell>) -> Result<Armed<'_>, Errno> {
        self.start()?;
        let mut waiting = lock(&self.shared.state);
        waiting.next += 1;
        let alarm = (instant, waiting.next);
        waiting.bells.insert(alarm, Arc::clone(bell));
        // It may well wake for nothing, once in a while, but is not woken for each run.
        if waiting.wakes.is_none_or(|wakes| instant < wakes) {
            self.shared.changed.notify_one();
        }
        Ok(Armed {
            alarms: self,
            alarm,
        })
    }

    fn start(&self) -> Result<(), Errno> {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let spawned = std::thread::Builder::new()
                .name("microvm-ring3-alarms".into())
                .spawn(move || shared.run());
            *thread = Some(
                spawned.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?,
            );
        }
        Ok(())
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        lock(&self.alarms.shared.state).bells.remove(&self.alarm);
    }
}

impl Shared {
    fn run(&self) {
        let mut waiting = lock(&self.state);
        while !waiting.stop {
            let first = waiting.bells.first_key_value().map(|(alarm, _)| *alarm);
            let Some(alarm) = first else {
                waiting.wakes = None;
                waiting = self
                    .changed
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = alarm.0.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if let Some(bell) = waiting.bells.remove(&alarm) {
                    bell.ring();
                }
                continue;
            }
            waiting.wakes = Some(alarm.0);
            let result = self.changed.wait_timeout(waiting, left);
            waiting = result.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Alarms {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = lock(&self.thread).take() {
            // It ends at once; a panic there has nothing to add.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings(bell: &Bell) -> bool {
        let mut own = [PollFd::new(&bell.event, PollFlags::IN)];
        poll(&mut own, Some(&Timespec::default())) == Ok(1)
    }

    #[test]
    fn bell_rings_in_time_and_not_when_disarmed() {
        let alarms = Alarms::default();
        let (one, other) = (
            Arc::new(Bell::new().unwrap()),
            Arc::new(Bell::new().unwrap()),
        );
        let late = Instant::now() + Duration::from_secs(3600);
        let _late = alarms.arm(late, &other).unwrap();
        drop(
            alarms
                .arm(Instant::now() + Duration::from_millis(1), &other)
                .unwrap(),
        );
        let start = Instant::now();
        let _soon = alarms.arm(start + Duration::from_millis(20), &one).unwrap();
        one.wait(&mut Vec::new(), Some(Duration::from_secs(60)));
        let time = start.elapsed();
        assert!(time >= Duration::from_millis(20) && time < Duration::from_secs(60));
        assert!(!rings(&other) && rings(&one));
        assert!(!one.take());
        assert!(!rings(&one));
    }

    #[test]
    fn interrupt_is_taken_once() {
        let bell = Arc::new(Bell::new().unwrap());
        Interrupter {
            bell: Arc::clone(&bell),
        }
        .interrupt();
        assert!(bell.take() && !bell.take());
    }

    #[test]
    fn bell_is_reused_in_silence_and_only_when_nobody_else_has_it() {
        let bells = Bells::default();
        let mut bell = bells.take().unwrap();
        let held = Interrupter {
            bell: Arc::clone(&bell),
        };
        held.interrupt();
        bells.give_back(&mut bell);
        assert!(!Arc::ptr_eq(&bells.take().unwrap(), &bell));
        drop(held);
        bells.give_back(&mut bell);
        let again = bells.take().unwrap();
        assert!(Arc::ptr_eq(&again, &bell));
        assert!(!rings(&again) && !again.take());
    }
}
