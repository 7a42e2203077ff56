//! When a run is to end, for whoever works long in one system call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::interrupt::Bell;
use crate::outcome::Limit;

/// Steps of work after which it is looked; none takes more than a few microseconds.
const OFTEN: u32 = 1024;

/// When a run is to end.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    pub start: Instant,
    pub wall: Option<Instant>,
    pub cpu: Option<Duration>,
    /// Processor time of the thread when the run began.
    pub cpu_start: Duration,
}

impl Deadlines {
    /// Processor time that the run has taken.
    pub fn cpu_used(&self) -> Duration {
        thread_time().saturating_sub(self.cpu_start)
    }

    /// The limit that is reached.
    pub fn over(&self) -> Option<Limit> {
        if self.wall.is_some_and(|wall| Instant::now() >= wall) {
            return Some(Limit::WallTime);
        }
        let over = self.cpu.is_some_and(|cpu| self.cpu_used() >= cpu);
        over.then_some(Limit::CpuTime)
    }

    /// When to look next.
    pub fn next(&self) -> Option<Instant> {
        // Beyond what the clock can count it is never.
        let cpu = self.cpu.and_then(|cpu| {
            let left = cpu.saturating_sub(self.cpu_used());
            Instant::now().checked_add(left.max(Duration::from_millis(1)))
        });
        match (self.wall, cpu) {
            (Some(wall), Some(cpu)) => Some(wall.min(cpu)),
            (wall, cpu) => wall.or(cpu),
        }
    }
}

/// Processor time of this thread.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// Looks, once in a while, whether a run is to end.
#[derive(Debug)]
pub struct Watch {
    bell: Arc<Bell>,
    deadlines: Deadlines,
    steps: u32,
}

impl Watch {
    pub fn new(bell: &Arc<Bell>, deadlines: Deadlines) -> Self {
        Self {
            bell: Arc::clone(bell),
            deadlines,
            steps: 0,
        }
    }

    /// Counts work that was done. `EINTR` where the run is to end: whoever answers the call looks
    /// for himself then, and no program sees this error.
    pub fn step(&mut self, steps: u32) -> Result<(), Errno> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps < OFTEN {
            return Ok(());
        }
        self.steps = 0;
        if self.bell.is_requested() || self.deadlines.over().is_some() {
            return Err(Errno::INTR);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadlines(wall: Option<Instant>, cpu: Option<Duration>) -> Deadlines {
        Deadlines {
            start: Instant::now(),
            wall,
            cpu,
            cpu_start: thread_time(),
        }
    }

    #[test]
    fn work_ends_once_the_time_is_over_or_somebody_interrupts() {
        let bell = Arc::new(Bell::new().unwrap());
        let mut late = Watch::new(&bell, deadlines(Some(Instant::now()), None));
        assert_eq!(late.step(OFTEN - 1), Ok(()));
        assert_eq!(late.step(1), Err(Errno::INTR));
        let mut free = Watch::new(&bell, deadlines(None, None));
        assert_eq!(free.step(OFTEN), Ok(()));
        crate::Interrupter {
            bell: Arc::clone(&bell),
        }
        .interrupt();
        assert_eq!(free.step(OFTEN), Err(Errno::INTR));
        assert!(bell.take());
    }

    #[test]
    fn processor_time_beyond_the_clock_is_none() {
        assert_eq!(deadlines(None, Some(Duration::MAX)).next(), None);
        assert_eq!(deadlines(None, Some(Duration::MAX)).over(), None);
    }
}
