//! What a program has asked for, and where there is room for more.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use microvm_ring3::Protection;
use rustix::io::Errno;

use super::LOWEST;

/// Most areas of a program, as Linux has a limit too.
const MOST: usize = 16_384;

/// A file whose bytes are copied into a program's pages.
pub trait Backing: Debug + Send + Sync {
    /// Fills the buffer from `offset` on; fewer bytes at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno>;
}

/// What is in the pages of an area when they are first touched.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Zeros.
    Anonymous,
    /// Zeros, from above to below.
    Stack,
    /// What the program's file has there.
    Image,
    /// Bytes of a file.
    File {
        backing: Arc<dyn Backing>,
        /// The offset in the file of address 0, which wraps.
        base: u64,
        /// Whether what is written would have to reach the file.
        shared: bool,
    },
}

/// A range of addresses.
#[derive(Clone, Debug)]
pub struct Area {
    pub end: u64,
    pub protection: Protection,
    pub kind: Kind,
    /// Pages that the next touch brings.
    pub pages: u64,
}

/// Pages that the first touch of an area brings.
const FIRST_PAGES: u64 = 8;

impl Area {
    pub fn new(end: u64, protection: Protection, kind: Kind) -> Self {
        Self {
            end,
            protection,
            kind,
            pages: FIRST_PAGES,
        }
    }

    /// Whether another one, right behind, is the same in all but place.
    fn continues(&self, other: &Self) -> bool {
        matches!(
            (&self.kind, &other.kind),
            (Kind::Anonymous, Kind::Anonymous)
        ) && self.protection == other.protection
    }
}

/// All areas of a program.
#[derive(Debug)]
pub struct Areas {
    by_start: BTreeMap<u64, Area>,
    /// Mappings are below this.
    top: u64,
    /// Where the search for room begins: there may be none between here and the top.
    hint: u64,
}

impl Areas {
    pub fn new(top: u64) -> Self {
        Self {
            by_start: BTreeMap::new(),
            top,
            hint: top,
        }
    }

    pub fn clear(&mut self) {
        self.by_start.clear();
        self.hint = self.top;
    }

    /// Has no area show a file any more.
    pub fn forget_files(&mut self) {
        for area in self.by_start.values_mut() {
            if matches!(area.kind, Kind::File { .. }) {
                area.kind = Kind::Anonymous;
            }
        }
    }

    /// Whether so many more may be added.
    pub fn has_room_for(&self, more: usize) -> bool {
        self.by_start.len() + more <= MOST
    }

    pub fn at(&self, address: u64) -> Option<(u64, &Area)> {
        let (start, area) = self.by_start.range(..=address).next_back()?;
        (address < area.end).then_some((*start, area))
    }

    pub fn at_mut(&mut self, address: u64) -> Option<&mut Area> {
        let (_, area) = self.by_start.range_mut(..=address).next_back()?;
        (address < area.end).then_some(area)
    }

    /// The areas that share an address with a range, in order.
    pub fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, &Area)> {
        let first = self.at(start).map_or(start, |(first, _)| first);
        self.by_start
            .range(first..end)
            .map(|(start, area)| (*start, area))
    }

    /// Whether areas cover a range without a gap.
    pub fn cover(&self, start: u64, end: u64) -> bool {
        let mut next = start;
        for (from, area) in self.within(start, end) {
            if from > next {
                return false;
            }
            next = area.end;
        }
        next >= end
    }

    pub fn is_free(&self, start: u64, end: u64) -> bool {
        self.within(start, end).next().is_none()
    }

    /// Adds an area where none is, as a part of the one below where that is the same.
    pub fn insert(&mut self, start: u64, mut area: Area) {
        if let Some(next) = self.by_start.get(&area.end)
            && area.continues(next)
        {
            let end = next.end;
            self.by_start.remove(&area.end);
            area.end = end;
        }
        if let Some((_, below)) = self.by_start.range_mut(..start).next_back()
            && below.end == start
            && below.continues(&area)
        {
            below.end = area.end;
            return;
        }
        self.by_start.insert(start, area);
    }

    /// Takes out what is between two addresses; what reaches beyond is cut.
    pub fn take(&mut self, start: u64, end: u64) -> Vec<(u64, Area)> {
        self.cut(start);
        self.cut(end);
        let starts: Vec<u64> = self
            .by_start
            .range(start..end)
            .map(|(start, _)| *start)
            .collect();
        if end <= self.top && end > self.hint {
            self.hint = end;
        }
        let taken = starts.into_iter();
        taken
            .filter_map(|start| Some((start, self.by_start.remove(&start)?)))
            .collect()
    }

    fn cut(&mut self, address: u64) {
        let Some((start, area)) = self.at(address) else {
            return;
        };
        if start == address {
            return;
        }
        let behind = area.clone();
        if let Some(area) = self.by_start.get_mut(&start) {
            area.end = address;
        }
        self.by_start.insert(address, behind);
    }

    /// Finds room for a mapping, as high as there is.
    pub fn find_room(&mut self, length: u64) -> Option<u64> {
        let start = self
            .room_below(self.hint, length)
            .or_else(|| self.room_below(self.top, length))?;
        self.hint = start;
        Some(start)
    }

    fn room_below(&self, top: u64, length: u64) -> Option<u64> {
        let mut end = top;
        let above = self.at(end.checked_sub(1)?).map(|(start, _)| start);
        end = above.unwrap_or(end);
        for (start, area) in self.by_start.range(..end).rev() {
            if end.saturating_sub(area.end) >= length {
                return Some(end - length);
            }
            end = end.min(*start);
        }
        let start = end.checked_sub(length)?;
        (start >= LOWEST).then_some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anonymous(end: u64) -> Area {
        Area::new(end, Protection::READ_WRITE, Kind::Anonymous)
    }

    #[test]
    fn room_is_found_from_the_top_and_again_where_something_went() {
        let mut areas = Areas::new(0x100_0000);
        let mut starts = Vec::new();
        for _ in 0..4 {
            let start = areas.find_room(0x1000).unwrap();
            areas.insert(start, anonymous(start + 0x1000));
            starts.push(start);
        }
        assert_eq!(starts, [0xff_f000, 0xff_e000, 0xff_d000, 0xff_c000]);
        // They are one by now.
        assert_eq!(areas.within(0, u64::MAX).count(), 1);
        areas.take(0xff_d000, 0xff_f000);
        assert_eq!(areas.find_room(0x2000), Some(0xff_d000));
        assert_eq!(areas.find_room(0x100_0000), None);
        assert!(areas.cover(0xff_c000, 0xff_d000) && !areas.cover(0xff_c000, 0xff_e000));
        assert!(areas.is_free(0xff_d000, 0xff_f000) && !areas.is_free(0xff_d000, 0xff_f001));
    }
}
