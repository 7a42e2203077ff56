//! Making a program's memory as it was before it ran. Afterwards every page that is mapped lies in
//! one of the areas that every program begins with, and has in it what was there at first.

use std::sync::Arc;

use microvm_ring3::Protection;

use super::areas::Area;
use super::{Failure, ProgramMemory};
use crate::frames::PAGE;

/// Pages that a reset writes anew rather than taking them away.
const KEPT_PAGES: u64 = 256;
/// Blocks and tables that a reset leaves with the sandbox.
const KEPT_BLOCKS: usize = 8;
const KEPT_TABLES: usize = 64;

impl ProgramMemory {
    /// Makes all as it was before the program ran. `false` where a new address space is the better
    /// way.
    pub fn reset(&mut self) -> Result<bool, Failure> {
        if self.frames.blocks() > KEPT_BLOCKS || self.tables.len() > KEPT_TABLES {
            return Ok(false);
        }
        let image = Arc::clone(&self.image);
        let stack = self.stack_top - self.stack_bytes;
        let kept: Vec<(u64, u64, Protection)> = image
            .parts()
            .iter()
            .map(|part| (part.start, part.end, part.protection))
            .chain([(stack, self.stack_top, Protection::READ_WRITE)])
            .collect();
        // Pages may have come as one that are partly within them.
        for (start, end, _) in &kept {
            self.cut_extent(*start);
            self.cut_extent(*end);
        }
        // What is between the parts that stay goes.
        let mut from = 0;
        for (start, end, _) in &kept {
            self.remove_between(from, *start)?;
            from = *end;
        }
        self.remove_between(from, u64::MAX)?;
        let own = self.extents.iter().filter(|(_, extent)| !extent.shared);
        let pages: u64 = own.map(|(start, extent)| (extent.end - start) / PAGE).sum();
        let unused = self.frames.unused();
        if pages > KEPT_PAGES || unused > KEPT_PAGES || !self.is_laid_out() {
            return Ok(false);
        }
        for (start, end, protection) in kept {
            self.restore(start, end, protection)?;
        }
        self.areas.clear();
        self.add_areas();
        self.end_of_heap = self.heap;
        Ok(true)
    }

    fn remove_between(&mut self, from: u64, to: u64) -> Result<(), Failure> {
        let first = self.extents.range(from..to).next();
        let last = self.extents.range(from..to).next_back();
        let (Some((first, _)), Some((_, last))) = (first, last) else {
            return Ok(());
        };
        let (first, last) = (*first, last.end);
        self.take_away(first, last, true)
    }

    /// Whether the pages that are shared are where they were, and copies are not in their place.
    fn is_laid_out(&self) -> bool {
        self.image.parts().iter().all(|part| {
            let shared = self.image.shared(part).is_some();
            let mut within = self.extents.range(part.start..part.end);
            let here = within
                .clone()
                .map(|(start, extent)| extent.end - start)
                .sum::<u64>();
            let same = within.all(|(_, extent)| extent.shared == shared);
            same && (!shared || here == part.end - part.start)
        })
    }

    /// Gives the pages of an area what was in them at first, and its protection.
    fn restore(&mut self, start: u64, end: u64, protection: Protection) -> Result<(), Failure> {
        let changed = |(_, area): (u64, &Area)| area.protection != protection;
        if self.areas.within(start, end).any(changed) {
            let extents: Vec<(u64, u64)> = self
                .extents
                .range(start..end)
                .map(|(start, extent)| (*start, extent.end))
                .collect();
            for (from, to) in extents {
                self.protect_extent(from, to, protection)?;
            }
        }
        for (start, extent) in self.extents.range(start..end) {
            if extent.shared {
                continue;
            }
            extent.run(*start).zero()?;
            let length = extent.end - start;
            self.image
                .copy(*start, &extent.memory, extent.offset, length)?;
        }
        Ok(())
    }
}
