//! The guest's physical addresses and memory slots: which are free.

use std::collections::{BTreeMap, BTreeSet};

/// Where memory starts: above everything that processors and KVM put below 4 GiB.
pub const START: u64 = 1 << 32;

/// Free ranges of addresses, and free slot numbers.
#[derive(Debug)]
pub struct PhysicalSpace {
    /// Length by start; neighbours are joined.
    free: BTreeMap<u64, u64>,
    free_slots: BTreeSet<u32>,
    next_slot: u32,
    slots: u32,
}

/// A place for one memory slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub slot: u32,
    pub address: u64,
    pub length: u64,
}

impl PhysicalSpace {
    /// All addresses from [`START`] to `end`, and `slots` slots.
    pub fn new(end: u64, slots: u32) -> Self {
        let free = (end > START).then(|| (START, end - START));
        Self {
            free: free.into_iter().collect(),
            free_slots: BTreeSet::new(),
            next_slot: 0,
            slots,
        }
    }

    /// Takes the first place that is long enough.
    pub fn take(&mut self, length: u64) -> Option<Place> {
        let (&address, &free) = self.free.iter().find(|(_, free)| **free >= length)?;
        let slot = match self.free_slots.pop_first() {
            Some(slot) => slot,
            None if self.next_slot < self.slots => {
                self.next_slot += 1;
                self.next_slot - 1
            }
            None => return None,
        };
        self.free.remove(&address);
        if free > length {
            self.free.insert(address + length, free - length);
        }
        Some(Place {
            slot,
            address,
            length,
        })
    }

    /// Gives a place back.
    pub fn give_back(&mut self, place: Place) {
        self.free_slots.insert(place.slot);
        let mut start = place.address;
        let mut length = place.length;
        if let Some(next) = self.free.remove(&(start + length)) {
            length += next;
        }
        if let Some((&before, &bytes)) = self.free.range(..start).next_back()
            && before + bytes == start
        {
            start = before;
            length += bytes;
        }
        self.free.insert(start, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_given_back_are_joined_and_used_again() {
        let mut space = PhysicalSpace::new(START + 0x3000, 3);
        let places: Vec<_> = (0..3).map(|_| space.take(0x1000).unwrap()).collect();
        assert_eq!(space.take(0x1000), None);
        for index in [0, 2, 1] {
            space.give_back(places[index]);
        }
        let whole = space.take(0x3000).unwrap();
        assert_eq!((whole.address, whole.slot), (START, 0));
    }

    #[test]
    fn slots_run_out_before_addresses_do() {
        let mut space = PhysicalSpace::new(START + 0x3000, 1);
        assert!(space.take(0x1000).is_some());
        assert_eq!(space.take(0x1000), None);
    }

    #[test]
    fn host_without_high_addresses_has_no_room() {
        assert_eq!(PhysicalSpace::new(START, 9).take(1), None);
        assert_eq!(PhysicalSpace::new(0, 9).take(1), None);
    }
}
