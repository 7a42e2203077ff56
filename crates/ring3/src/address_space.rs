//! What a program sees of memory: which memory is mapped where.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use microvm_kvm::PAGE_SIZE;

use crate::error::Error;
use crate::layout::{MAX_USER_ADDRESS, MIN_USER_ADDRESS};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::page_tables::lock;
use crate::space::{Protection, Space};

/// An address space. Any number of contexts can run in it at the same time.
///
/// What is mapped anew is there at once. A change of what was mapped before (unmapping, other
/// protections, other memory) makes the vCPUs that run in the space leave the guest for a moment;
/// when the call returns, none of them sees anything of what was.
///
/// Where such a change fails, for a vCPU cannot be stopped or the kernel does not forget, programs
/// may see the range as it was, as it was to be, or empty. It counts as mapped as before then, so
/// that its memory stays, and the call can be repeated.
///
/// Dropping it is [`AddressSpace::release`]. Where that fails to the last, the memory that is mapped
/// is never let go.
#[derive(Debug)]
pub struct AddressSpace {
    machine: Arc<Machine>,
    space: Arc<Space>,
    ranges: Mutex<Ranges>,
}

#[derive(Debug, Default)]
struct Ranges {
    by_start: BTreeMap<u64, Range>,
    released: bool,
}

/// A range of addresses that shows a part of a memory.
#[derive(Clone, Debug)]
struct Range {
    end: u64,
    memory: Arc<Memory>,
    offset: u64,
    protection: Protection,
}

impl AddressSpace {
    pub(crate) fn new(machine: Arc<Machine>) -> Result<Self, Error> {
        let space = Arc::new(Space::new(&machine)?);
        Ok(Self {
            machine,
            space,
            ranges: Mutex::default(),
        })
    }

    /// Maps `length` bytes of `memory` from `offset` on at `address`, in place of what was there.
    /// A program that runs meanwhile may find the range empty for a moment.
    ///
    /// With `precommit` the pages are allocated now, so that the first access is quick.
    ///
    /// # Errors
    ///
    /// Where the range is not whole pages that programs may use, the part is not inside of the
    /// memory, the memory is read-only and `protection` is not, either belongs to another machine,
    /// the space was released, the change fails, or the host has no memory. With `precommit` also where a file ends
    /// before the part (`EFAULT`).
    pub fn map(
        &self,
        address: u64,
        memory: &Arc<Memory>,
        offset: u64,
        length: u64,
        protection: Protection,
        precommit: bool,
    ) -> Result<(), Error> {
        let end = check(address, length)?;
        memory.check(offset, length)?;
        if !Arc::ptr_eq(memory.machine(), &self.machine) {
            return Err(Error::OtherMachine);
        }
        if protection.write && !memory.is_writable() {
            return Err(Error::ReadOnlyMemory);
        }
        let mut ranges = self.ranges()?;
        if precommit {
            memory.populate(offset, length)?;
        }
        self.clear(&mut ranges, address, end)?;
        let range = Range {
            end,
            memory: Arc::clone(memory),
            offset,
            protection,
        };
        // The slot is there since the memory is; from here on the guest may use the entries.
        let place = Some(memory.address(offset));
        if let Err(error) = self.space.set(address, length, place, protection) {
            // What was written before the tables ran out goes away again.
            ranges.by_start.insert(address, range);
            self.clear(&mut ranges, address, end)?;
            return Err(error);
        }
        ranges.insert(address, range);
        Ok(())
    }

    /// Removes what is mapped in a range; what is not, stays so.
    ///
    /// # Errors
    ///
    /// Where the range is not whole pages that programs may use, the space was released, or the
    /// change fails.
    pub fn unmap(&self, address: u64, length: u64) -> Result<(), Error> {
        let end = check(address, length)?;
        self.clear(&mut *self.ranges()?, address, end)
    }

    /// Changes what programs may do with a range.
    ///
    /// # Errors
    ///
    /// Where the range is not whole pages that programs may use, is not mapped throughout, or shows
    /// read-only memory that `protection` lets programs write (nothing is changed then); or where
    /// the space was released, or the change fails.
    pub fn protect(&self, address: u64, length: u64, protection: Protection) -> Result<(), Error> {
        let end = check(address, length)?;
        let mut ranges = self.ranges()?;
        let mut next = address;
        for (start, range) in ranges.within(address, end) {
            if start > next {
                break;
            }
            if protection.write && !range.memory.is_writable() {
                return Err(Error::ReadOnlyMemory);
            }
            next = range.end;
        }
        if next < end {
            return Err(Error::NotMapped { address: next });
        }
        let parts = ranges.take(address, end);
        let result = self.change(&parts, || {
            parts.iter().try_for_each(|(start, range)| {
                let place = Some(range.memory.address(range.offset));
                self.space.set(*start, range.end - start, place, protection)
            })
        });
        for (start, mut range) in parts {
            if result.is_ok() {
                range.protection = protection;
            }
            ranges.by_start.insert(start, range);
        }
        result
    }

    /// What is mapped at an address: the memory, the offset of the address in it, and what
    /// programs may do there.
    #[must_use]
    pub fn lookup(&self, address: u64) -> Option<(Arc<Memory>, u64, Protection)> {
        let ranges = self.ranges().ok()?;
        let (start, range) = ranges.by_start.range(..=address).next_back()?;
        let inside = address < range.end;
        let offset = range.offset + (address - start);
        inside.then(|| (Arc::clone(&range.memory), offset, range.protection))
    }

    /// Ends the address space, even while programs run in it: their switches end with
    /// [`Error::Released`], as do all later calls. Memory is let go at once, page tables when no
    /// vCPU has them loaded any more.
    ///
    /// # Errors
    ///
    /// Where the change fails: then nobody gets in any more, but the memory is not let go. Another
    /// call tries again; once it has succeeded it does nothing.
    pub fn release(&self) -> Result<(), Error> {
        let mut ranges = lock(&self.ranges);
        ranges.released = true;
        self.space.gate().release();
        self.clear(&mut ranges, MIN_USER_ADDRESS, MAX_USER_ADDRESS)?;
        self.machine.pool.drop_released();
        Ok(())
    }

    pub(crate) fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// The address of a guest physical address, in any of its ranges.
    pub(crate) fn find(&self, physical: u64) -> Option<u64> {
        let ranges = lock(&self.ranges);
        ranges.by_start.iter().find_map(|(start, range)| {
            let offset = range.memory.offset(physical)?.checked_sub(range.offset)?;
            (offset < range.end - start).then_some(start + offset)
        })
    }

    fn ranges(&self) -> Result<std::sync::MutexGuard<'_, Ranges>, Error> {
        let ranges = lock(&self.ranges);
        if ranges.released {
            return Err(Error::Released);
        }
        Ok(ranges)
    }

    fn clear(&self, ranges: &mut Ranges, address: u64, end: u64) -> Result<(), Error> {
        if ranges.within(address, end).next().is_none() {
            return Ok(());
        }
        let parts = ranges.take(address, end);
        let result = self.change(&parts, || {
            parts.iter().try_for_each(|(start, range)| {
                self.space
                    .set(*start, range.end - start, None, Protection::NONE)
            })
        });
        if result.is_err() {
            // Somebody may still see the memory, which therefore has to stay where it is.
            ranges.by_start.extend(parts);
        }
        result
    }

    /// Calls `edit`, which changes the entries of these ranges, so that no vCPU goes on by the old
    /// ones.
    fn change(
        &self,
        parts: &[(u64, Range)],
        edit: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.space.gate().edit(|| {
            edit()?;
            // Nothing was derived from tables that no vCPU ever used.
            if !self.space.gate().was_used() {
                return Ok(());
            }
            parts.iter().try_for_each(|(start, range)| {
                let length = range.end - start;
                range.memory.forget_translations(range.offset, length)
            })
        })?
    }

    /// Changes an entry and nothing else, as no caller may. For the self-test.
    pub(crate) fn edit_only(
        &self,
        address: u64,
        memory: &Memory,
        offset: u64,
    ) -> Result<(), Error> {
        let place = Some(memory.address(offset));
        self.space.set(address, PAGE_SIZE, place, Protection::READ)
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        if self.release().is_err() {
            // A vCPU may still see the memory: nothing else may ever be at its addresses.
            for range in std::mem::take(&mut lock(&self.ranges).by_start).into_values() {
                std::mem::forget(range);
            }
            std::mem::forget(Arc::clone(&self.space));
        }
    }
}

impl Ranges {
    /// Adds a range where none is, as a part of the one before where it goes on with that: a program
    /// that gets its memory page by page has few ranges.
    fn insert(&mut self, address: u64, range: Range) {
        if let Some((start, before)) = self.by_start.range_mut(..address).next_back()
            && before.end == address
            && before.protection == range.protection
            && before.offset + (address - start) == range.offset
            && Arc::ptr_eq(&before.memory, &range.memory)
        {
            before.end = range.end;
            return;
        }
        self.by_start.insert(address, range);
    }

    /// The ranges that share an address with this one, in order.
    fn within(&self, address: u64, end: u64) -> impl Iterator<Item = (u64, &Range)> {
        let first = self.by_start.range(..=address).next_back();
        let first = first.filter(|(_, range)| range.end > address);
        let first = first.map_or(address, |(start, _)| *start);
        self.by_start
            .range(first..end)
            .map(|(start, range)| (*start, range))
    }

    /// Takes out what is between two addresses; what reaches beyond is cut there.
    fn take(&mut self, address: u64, end: u64) -> Vec<(u64, Range)> {
        let starts: Vec<u64> = self.within(address, end).map(|(start, _)| start).collect();
        let mut parts = Vec::with_capacity(starts.len());
        for start in starts {
            let Some(mut range) = self.by_start.remove(&start) else {
                continue;
            };
            let mut from = start;
            if start < address {
                let before = Range {
                    end: address,
                    ..range.clone()
                };
                self.by_start.insert(start, before);
                range.offset += address - start;
                from = address;
            }
            if range.end > end {
                let behind = Range {
                    offset: range.offset + (end - from),
                    ..range.clone()
                };
                self.by_start.insert(end, behind);
                range.end = end;
            }
            parts.push((from, range));
        }
        parts
    }
}

/// The end of a range that programs may use.
fn check(address: u64, length: u64) -> Result<u64, Error> {
    let refused = Error::Range {
        address,
        length,
        min: MIN_USER_ADDRESS,
        max: MAX_USER_ADDRESS,
    };
    match address.checked_add(length) {
        Some(end)
            if length > 0
                && address >= MIN_USER_ADDRESS
                && end <= MAX_USER_ADDRESS
                && address.is_multiple_of(PAGE_SIZE)
                && length.is_multiple_of(PAGE_SIZE) =>
        {
            Ok(end)
        }
        _ => Err(refused),
    }
}
