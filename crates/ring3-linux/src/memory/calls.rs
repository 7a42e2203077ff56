//! The system calls that change a program's memory. Arguments are as the program gave them.

use microvm_ring3::Protection;
use rustix::io::Errno;

use super::areas::{Area, Kind};
use super::{Extent, Failure, LOWEST, ProgramMemory};
use crate::frames::PAGE;

/// Most bytes of a range, which keeps all sums below the end of the address space.
const MOST: u64 = 1 << 47;

/// What `mmap` is to do.
#[derive(Debug)]
pub struct Map {
    pub address: u64,
    pub length: u64,
    pub protection: Protection,
    pub kind: Kind,
    /// Exactly at the address.
    pub fixed: bool,
    /// And only where nothing is.
    pub keep: bool,
    /// However much it is.
    pub reserve: bool,
}

/// What `mremap` is to do.
#[derive(Clone, Copy, Debug)]
pub struct Remap {
    pub address: u64,
    pub old_length: u64,
    pub length: u64,
    pub may_move: bool,
}

fn pages(length: u64) -> Result<u64, Errno> {
    if length == 0 {
        return Err(Errno::INVAL);
    }
    if length > MOST {
        return Err(Errno::NOMEM);
    }
    Ok(length.next_multiple_of(PAGE))
}

impl ProgramMemory {
    fn end(&self, address: u64, length: u64) -> Result<u64, Errno> {
        if !address.is_multiple_of(PAGE) {
            return Err(Errno::INVAL);
        }
        let end = address.checked_add(length).ok_or(Errno::NOMEM)?;
        if end > self.stack_top {
            return Err(Errno::NOMEM);
        }
        Ok(end)
    }

    /// `mmap`
    pub fn map(&mut self, map: Map) -> Result<u64, Errno> {
        let length = pages(map.length)?;
        let more_than_there_is = map.protection.write && !map.reserve;
        if more_than_there_is && length > self.charge.budget_limit() {
            return Err(Errno::NOMEM);
        }
        if !self.areas.has_room_for(2) {
            return Err(Errno::NOMEM);
        }
        let start = if map.fixed {
            let end = self.end(map.address, length)?;
            if map.address < LOWEST {
                return Err(Errno::PERM);
            }
            if map.keep && !self.areas.is_free(map.address, end) {
                return Err(Errno::EXIST);
            }
            self.remove(map.address, end)?;
            map.address
        } else {
            self.find_room(map.address, length)?
        };
        let kind = match map.kind {
            // The offset in the file becomes that of address 0.
            Kind::File {
                backing,
                base,
                shared,
            } => Kind::File {
                backing,
                base: base.wrapping_sub(start),
                shared,
            },
            kind => kind,
        };
        self.areas
            .insert(start, Area::new(start + length, map.protection, kind));
        Ok(start)
    }

    fn find_room(&mut self, wish: u64, length: u64) -> Result<u64, Errno> {
        let wish = wish - wish % PAGE;
        if wish >= LOWEST
            && let Ok(end) = self.end(wish, length)
            && end <= self.stack_top - self.stack_bytes
            && self.areas.is_free(wish, end)
        {
            return Ok(wish);
        }
        self.areas.find_room(length).ok_or(Errno::NOMEM)
    }

    fn remove(&mut self, start: u64, end: u64) -> Result<(), Errno> {
        let removed = self.remove_extents(start, end);
        self.answer(removed, Errno::NOMEM)?;
        self.areas.take(start, end);
        Ok(())
    }

    /// `munmap`
    pub fn unmap(&mut self, address: u64, length: u64) -> Result<u64, Errno> {
        if length == 0 {
            return Err(Errno::INVAL);
        }
        let length = length.checked_next_multiple_of(PAGE).ok_or(Errno::INVAL)?;
        let end = self.end(address, length).map_err(|_| Errno::INVAL)?;
        if !self.areas.has_room_for(1) {
            return Err(Errno::NOMEM);
        }
        self.remove(address, end)?;
        Ok(0)
    }

    /// `madvise` with `MADV_DONTNEED`
    pub fn empty(&mut self, address: u64, length: u64) -> Result<u64, Errno> {
        let length = length.checked_next_multiple_of(PAGE).ok_or(Errno::INVAL)?;
        let end = self.end(address, length)?;
        if !self.areas.cover(address, end) {
            return Err(Errno::NOMEM);
        }
        let removed = self.remove_extents_but_shared(address, end);
        self.answer(removed, Errno::NOMEM)?;
        Ok(0)
    }

    /// Pages of the image that are shared stay: they are as they were.
    fn remove_extents_but_shared(&mut self, start: u64, end: u64) -> Result<(), Failure> {
        let own: Vec<(u64, u64)> = self
            .cut_extents(start, end)
            .into_iter()
            .filter_map(|start| Some((start, self.extents.get(&start)?)))
            .filter(|(_, extent)| !extent.shared)
            .map(|(start, extent)| (start, extent.end))
            .collect();
        own.into_iter()
            .try_for_each(|(start, end)| self.remove_extents(start, end))
    }

    /// `mprotect`
    pub fn protect(
        &mut self,
        address: u64,
        length: u64,
        protection: Protection,
    ) -> Result<u64, Errno> {
        if !address.is_multiple_of(PAGE) {
            return Err(Errno::INVAL);
        }
        if length == 0 {
            return Ok(0);
        }
        let length = length.checked_next_multiple_of(PAGE).ok_or(Errno::NOMEM)?;
        let end = self.end(address, length)?;
        if !self.areas.cover(address, end) || !self.areas.has_room_for(2) {
            return Err(Errno::NOMEM);
        }
        if self
            .areas
            .within(address, end)
            .all(|(_, area)| area.protection == protection)
        {
            return Ok(0);
        }
        let shared = |(_, area): (u64, &Area)| matches!(area.kind, Kind::File { shared: true, .. });
        if protection.write && self.areas.within(address, end).any(shared) {
            return Err(Errno::ACCESS);
        }
        let changed = self.change_protection(address, end, protection);
        self.answer(changed, Errno::NOMEM)?;
        for (start, area) in self.areas.take(address, end) {
            self.areas.insert(start, Area { protection, ..area });
        }
        Ok(0)
    }

    fn change_protection(
        &mut self,
        start: u64,
        end: u64,
        protection: Protection,
    ) -> Result<(), Failure> {
        for from in self.cut_extents(start, end) {
            let Some(extent) = self.extents.get(&from) else {
                continue;
            };
            let (to, shared) = (extent.end, extent.shared);
            if shared && protection.write {
                // Copies come when they are touched.
                self.remove_extents(from, to)?;
            } else {
                self.protect_extent(from, to, protection)?;
            }
        }
        Ok(())
    }

    /// `mremap`
    pub fn remap(&mut self, remap: Remap) -> Result<u64, Errno> {
        let address = remap.address;
        let length = pages(remap.length)?;
        let old_length = pages(remap.old_length)?;
        let end = self.end(address, old_length).map_err(|_| Errno::FAULT)?;
        let (start, area) = self.areas.at(address).ok_or(Errno::FAULT)?;
        if area.end < end {
            return Err(Errno::FAULT);
        }
        let area = area.clone();
        if length <= old_length {
            if length < old_length {
                self.unmap(address + length, old_length - length)?;
            }
            return Ok(address);
        }
        // There is nothing behind them that they could show.
        if matches!(area.kind, Kind::Image | Kind::Stack) {
            return Err(Errno::NOMEM);
        }
        if length > self.charge.budget_limit() || !self.areas.has_room_for(3) {
            return Err(Errno::NOMEM);
        }
        let grown = address + length;
        let room = grown <= self.stack_top - self.stack_bytes && self.areas.is_free(end, grown);
        if area.end == end && room {
            self.areas.take(start, end);
            self.areas.insert(start, Area { end: grown, ..area });
            return Ok(address);
        }
        if !remap.may_move {
            return Err(Errno::NOMEM);
        }
        let target = self.areas.find_room(length).ok_or(Errno::NOMEM)?;
        let moved = self.move_extents(address, end, target, area.protection);
        self.answer(moved, Errno::NOMEM)?;
        self.areas.take(address, end);
        let kind = match area.kind {
            Kind::File {
                backing,
                base,
                shared,
            } => Kind::File {
                backing,
                base: base.wrapping_add(address).wrapping_sub(target),
                shared,
            },
            kind => kind,
        };
        self.areas
            .insert(target, Area::new(target + length, area.protection, kind));
        Ok(target)
    }

    /// Shows pages at another place instead.
    fn move_extents(
        &mut self,
        start: u64,
        end: u64,
        target: u64,
        protection: Protection,
    ) -> Result<(), Failure> {
        let starts = self.cut_extents(start, end);
        if starts.is_empty() {
            return Ok(());
        }
        // Nothing is lost where mapping fails: the pages are where they were.
        for from in &starts {
            let Some(extent) = self.extents.get(from).cloned() else {
                continue;
            };
            let place = target + (from - start);
            let extent = Extent {
                end: place + (extent.end - from),
                ..extent
            };
            if let Err(failure) = self.map_extent(place, extent, protection) {
                let length = end - start;
                self.space.unmap(target, length)?;
                self.extents
                    .retain(|at, _| !(target..target + length).contains(at));
                return Err(failure);
            }
        }
        self.space.unmap(start, end - start)?;
        for from in starts {
            self.extents.remove(&from);
        }
        Ok(())
    }

    /// `brk`
    pub fn set_break(&mut self, address: u64) -> u64 {
        let old = self.end_of_heap;
        let (old_page, new_page) = (
            old.next_multiple_of(PAGE),
            address.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX),
        );
        if address < self.heap || new_page > self.stack_top {
            return old;
        }
        if new_page > old_page {
            let room = self.areas.is_free(old_page, new_page) && self.areas.has_room_for(1);
            if !room || new_page - self.heap > self.charge.budget_limit() {
                return old;
            }
            let area = Area::new(new_page, Protection::READ_WRITE, Kind::Anonymous);
            self.areas.insert(old_page, area);
        } else if new_page < old_page && self.remove(new_page, old_page).is_err() {
            return old;
        }
        self.end_of_heap = address;
        address
    }
}
