//! Counts the bytes of memory that a sandbox uses, of whatever kind, against its limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A count that its parts share.
#[derive(Clone, Debug)]
pub struct Budget {
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Counts {
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
}

/// There is not so much left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded;

impl Budget {
    pub fn new(limit: u64) -> Self {
        let counts = Counts {
            limit,
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        };
        Self {
            counts: Arc::new(counts),
        }
    }

    pub fn limit(&self) -> u64 {
        self.counts.limit
    }

    pub fn left(&self) -> u64 {
        let used = self.counts.used.load(Ordering::Relaxed);
        self.counts.limit.saturating_sub(used)
    }

    /// Most bytes since the last [`Budget::reset_peak`].
    pub fn peak(&self) -> u64 {
        self.counts.peak.load(Ordering::Relaxed)
    }

    pub fn reset_peak(&self) {
        let used = self.counts.used.load(Ordering::Relaxed);
        self.counts.peak.store(used, Ordering::Relaxed);
    }

    /// Counts bytes that are to be used.
    pub fn take(&self, bytes: u64) -> Result<(), Exceeded> {
        // Only the thread that has the sandbox counts.
        let used = self.counts.used.load(Ordering::Relaxed);
        let now = used.checked_add(bytes).ok_or(Exceeded)?;
        if now > self.counts.limit {
            return Err(Exceeded);
        }
        self.counts.used.store(now, Ordering::Relaxed);
        self.counts.peak.fetch_max(now, Ordering::Relaxed);
        Ok(())
    }

    /// Takes back what was counted.
    pub fn give_back(&self, bytes: u64) {
        let used = self.counts.used.load(Ordering::Relaxed);
        let now = used.saturating_sub(bytes);
        self.counts.used.store(now, Ordering::Relaxed);
    }
}

/// Bytes that are counted as long as this exists.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: u64,
}

impl Charge {
    pub fn new(budget: &Budget, bytes: u64) -> Result<Self, Exceeded> {
        budget.take(bytes)?;
        Ok(Self {
            budget: budget.clone(),
            bytes,
        })
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Most bytes of all that is counted together.
    pub fn budget_limit(&self) -> u64 {
        self.budget.limit()
    }

    /// Counts this many bytes from now on.
    pub fn set(&mut self, bytes: u64) -> Result<(), Exceeded> {
        if bytes > self.bytes {
            self.budget.take(bytes - self.bytes)?;
        } else {
            self.budget.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_are_counted_and_given_back() {
        let budget = Budget::new(100);
        let mut charge = Charge::new(&budget, 60).unwrap();
        assert!(Charge::new(&budget, 41).is_err());
        charge.set(100).unwrap();
        assert_eq!((budget.left(), charge.set(101)), (0, Err(Exceeded)));
        charge.set(10).unwrap();
        drop(charge);
        assert_eq!((budget.left(), budget.peak()), (100, 100));
        budget.take(u64::MAX).unwrap_err();
    }
}
