//! Port I/O and MMIO: which device answers at an address.
//!
//! One [`Bus`] per address space, filled before the first vCPU runs and never changed after, so
//! that vCPU threads read it without a lock.

use std::fmt;
use std::sync::Arc;

/// A device on the port or MMIO bus. Called from vCPU threads, several at a time.
pub trait BusDevice: Send + Sync {
    /// Fills `data` for a read of `data.len()` bytes at `offset` from the device's base.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Takes a write of `data` at `offset` from the device's base.
    fn write(&self, offset: u64, data: &[u8]);
}

/// Why a device cannot be put on a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The range is empty or passes the end of the address space.
    #[error("Bus range at {base:#x} of {length:#x} bytes is empty or wraps around")]
    Range {
        /// First address of the range.
        base: u64,
        /// Length in bytes.
        length: u64,
    },
    /// Another device answers in part of the range.
    #[error("Bus range at {base:#x} of {length:#x} bytes overlaps the one at {other:#x}")]
    Overlap {
        /// First address of the range.
        base: u64,
        /// Length in bytes.
        length: u64,
        /// First address of the range that was there before.
        other: u64,
    },
}

struct Range {
    base: u64,
    /// Last address that belongs to the device; inclusive, so that a range may end at the top.
    last: u64,
    device: Arc<dyn BusDevice>,
}

/// Devices by address, sorted and without overlap.
#[derive(Default)]
pub struct Bus {
    ranges: Vec<Range>,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.ranges.iter().map(|r| r.base..=r.last))
            .finish()
    }
}

impl Bus {
    /// An empty bus: every read is all ones.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `device` at `base`, for `length` bytes.
    ///
    /// # Errors
    ///
    /// [`BusError`] when the range is empty, wraps, or overlaps another device's.
    pub fn insert(
        &mut self,
        base: u64,
        length: u64,
        device: Arc<dyn BusDevice>,
    ) -> Result<(), BusError> {
        let last = length
            .checked_sub(1)
            .and_then(|rest| base.checked_add(rest))
            .ok_or(BusError::Range { base, length })?;
        let at = self.ranges.partition_point(|range| range.last < base);
        if let Some(next) = self.ranges.get(at).filter(|range| range.base <= last) {
            return Err(BusError::Overlap {
                base,
                length,
                other: next.base,
            });
        }
        self.ranges.insert(at, Range { base, last, device });
        Ok(())
    }

    /// Reads `data.len()` bytes at `address`. Where no device answers for the whole access, the
    /// bus floats high: all ones.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((range, offset)) => range.device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes `data` at `address`; lost where no device answers for the whole access.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((range, offset)) = self.find(address, data.len()) {
            range.device.write(offset, data);
        }
    }

    fn find(&self, address: u64, length: usize) -> Option<(&Range, u64)> {
        let at = self.ranges.partition_point(|range| range.last < address);
        let range = self.ranges.get(at)?;
        let offset = address.checked_sub(range.base)?;
        let rest = u64::try_from(length).ok()?.checked_sub(1)?;
        (address.checked_add(rest)? <= range.last).then_some((range, offset))
    }
}

#[cfg(test)]
mod tests;
