//! The memory of a running program: what it has asked for, what of that is there, and copying in
//! and out.
//!
//! An [`Area`](areas::Area) is what the program has asked for. Pages come when they are first touched, by
//! the program or by a system call, a few more each time; they are then mapped and stay so. So
//! nothing that is mapped ever changes but by `munmap`, `mprotect` and `mremap`, which the platform
//! makes vCPUs notice. Pages of the file that programs cannot write are the only ones that
//! sandboxes share; they are never mapped for writing: where a program asks for that it gets copies.

mod areas;
mod calls;
mod copy;
mod faults;
mod reset;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use microvm_ring3::{AddressSpace, Memory, Platform, Protection};
use rustix::io::Errno;

use areas::{Area, Areas};
pub use areas::{Backing, Kind};
pub use calls::{Map, Remap};
pub use faults::Touch;

use crate::budget::{Budget, Charge, Exceeded};
use crate::frames::{Frames, NoFrames, PAGE, Pool, Run};
use crate::image::Image;

/// Lowest address that mappings may have.
pub const LOWEST: u64 = 0x1_0000;
/// Bytes between the stack's end and the first mapping below it.
const STACK_GAP: u64 = 1 << 20;
/// Bytes that a table maps, by its level, the lowest first; each takes a page. There is one of the
/// highest level, and a program cannot have it be more.
const TABLE_SPANS: [u64; 3] = [2 << 20, 1 << 30, 512 << 30];
/// Why a program's memory could not be had.
#[derive(Debug)]
pub enum Failure {
    /// The limit is reached.
    Limit,
    /// The platform failed, which ends the run.
    Platform(microvm_ring3::Error),
}

impl From<Exceeded> for Failure {
    fn from(_: Exceeded) -> Self {
        Self::Limit
    }
}

impl From<NoFrames> for Failure {
    fn from(why: NoFrames) -> Self {
        match why {
            NoFrames::Limit => Self::Limit,
            NoFrames::Platform(error) => Self::Platform(error),
        }
    }
}

impl From<microvm_ring3::Error> for Failure {
    fn from(error: microvm_ring3::Error) -> Self {
        Self::Platform(error)
    }
}

/// Pages that are mapped, and where they are.
#[derive(Clone, Debug)]
struct Extent {
    end: u64,
    memory: Arc<Memory>,
    offset: u64,
    /// Whether they are the image's own.
    shared: bool,
}

impl Extent {
    /// The pages, of the extent that begins there.
    fn run(&self, start: u64) -> Run {
        Run {
            memory: Arc::clone(&self.memory),
            offset: self.offset,
            pages: (self.end - start) / PAGE,
        }
    }
}

/// Where a piece of a program's memory is.
#[derive(Clone, Debug)]
pub struct Piece {
    pub memory: Arc<Memory>,
    pub offset: u64,
    pub length: usize,
}

/// A program's memory.
#[derive(Debug)]
pub struct ProgramMemory {
    space: Arc<AddressSpace>,
    image: Arc<Image>,
    frames: Frames,
    areas: Areas,
    extents: BTreeMap<u64, Extent>,
    /// Regions that have a page table, by its level and their number.
    tables: BTreeSet<(usize, u64)>,
    /// Page tables.
    charge: Charge,
    /// The image, which others may use as well.
    image_charge: Charge,
    stack_top: u64,
    stack_bytes: u64,
    heap: u64,
    end_of_heap: u64,
    /// A failure of the platform that a copy met, which is to end the run.
    broken: Option<microvm_ring3::Error>,
    released: bool,
}

impl ProgramMemory {
    /// Maps a program into an empty address space.
    pub fn new(
        space: AddressSpace,
        platform: &dyn Platform,
        pool: &Arc<Pool>,
        image: Arc<Image>,
        budget: &Budget,
        stack_bytes: u64,
    ) -> Result<Self, Failure> {
        let stack_top = platform.max_user_address() - PAGE;
        let parts = image.parts();
        let image_charge = Charge::new(budget, image.bytes())?;
        let heap = parts.last().map_or(LOWEST, |part| part.end);
        let mut memory = Self {
            space: Arc::new(space),
            frames: Frames::new(pool, budget)?,
            areas: Areas::new(stack_top - stack_bytes - STACK_GAP),
            extents: BTreeMap::new(),
            tables: BTreeSet::new(),
            charge: Charge::new(budget, 0)?,
            image_charge,
            image,
            stack_top,
            stack_bytes,
            heap,
            end_of_heap: heap,
            broken: None,
            released: false,
        };
        memory.add_areas();
        memory.map_shared()?;
        Ok(memory)
    }

    /// Counts all of it against another budget, or leaves it where it is.
    pub fn charge_to(&mut self, budget: &Budget) -> Result<(), Exceeded> {
        let tables = Charge::new(budget, self.charge.bytes())?;
        let image = Charge::new(budget, self.image_charge.bytes())?;
        self.frames.charge_to(budget)?;
        self.charge = tables;
        self.image_charge = image;
        Ok(())
    }

    /// The address space to run in.
    pub fn space(&self) -> &Arc<AddressSpace> {
        &self.space
    }

    /// The program.
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// One past the highest address of the stack.
    pub fn stack_top(&self) -> u64 {
        self.stack_top
    }

    /// Bytes of the stack.
    pub fn stack_bytes(&self) -> u64 {
        self.stack_bytes
    }

    /// The failure of the platform that a call has met.
    pub fn take_broken(&mut self) -> Option<microvm_ring3::Error> {
        self.broken.take()
    }

    /// The areas that every program begins with.
    fn add_areas(&mut self) {
        for part in self.image.parts() {
            let area = Area::new(part.end, part.protection, Kind::Image);
            self.areas.insert(part.start, area);
        }
        let stack = Area::new(self.stack_top, Protection::READ_WRITE, Kind::Stack);
        self.areas.insert(self.stack_top - self.stack_bytes, stack);
    }

    fn map_shared(&mut self) -> Result<(), Failure> {
        let image = Arc::clone(&self.image);
        for part in image.parts() {
            let Some((memory, offset)) = image.shared(part) else {
                continue;
            };
            let extent = Extent {
                end: part.end,
                memory: Arc::clone(memory),
                offset,
                shared: true,
            };
            self.map_extent(part.start, extent, part.protection)?;
        }
        Ok(())
    }

    /// Maps pages where none are.
    fn map_extent(
        &mut self,
        start: u64,
        extent: Extent,
        protection: Protection,
    ) -> Result<(), Failure> {
        let length = extent.end - start;
        for (level, span) in TABLE_SPANS.into_iter().enumerate() {
            for table in start / span..=(extent.end - 1) / span {
                if !self.tables.contains(&(level, table)) {
                    self.charge.set(self.charge.bytes() + PAGE)?;
                    self.tables.insert((level, table));
                }
            }
        }
        let protection = Protection {
            write: protection.write && !extent.shared,
            ..protection
        };
        self.space.map(
            start,
            &extent.memory,
            extent.offset,
            length,
            protection,
            false,
        )?;
        self.extents.insert(start, extent);
        Ok(())
    }

    /// The pages that are mapped at an address.
    fn extent(&self, address: u64) -> Option<(u64, &Extent)> {
        let (start, extent) = self.extents.range(..=address).next_back()?;
        (address < extent.end).then_some((*start, extent))
    }

    /// Cuts an extent in two at an address, if there is one.
    fn cut_extent(&mut self, address: u64) {
        let Some((start, extent)) = self.extent(address) else {
            return;
        };
        if start == address {
            return;
        }
        let behind = Extent {
            offset: extent.offset + (address - start),
            ..extent.clone()
        };
        if let Some(extent) = self.extents.get_mut(&start) {
            extent.end = address;
        }
        self.extents.insert(address, behind);
    }

    /// The extents between two addresses, which are cut there.
    fn cut_extents(&mut self, start: u64, end: u64) -> Vec<u64> {
        self.cut_extent(start);
        self.cut_extent(end);
        self.extents
            .range(start..end)
            .map(|(start, _)| *start)
            .collect()
    }

    /// Takes pages away; the areas stay.
    fn remove_extents(&mut self, start: u64, end: u64) -> Result<(), Failure> {
        self.take_away(start, end, false)
    }

    /// Takes pages away, and makes them zeros before, as long as they are at hand.
    fn take_away(&mut self, start: u64, end: u64, zero: bool) -> Result<(), Failure> {
        let starts = self.cut_extents(start, end);
        if starts.is_empty() {
            return Ok(());
        }
        if zero {
            for (start, extent) in self.extents.range(start..end) {
                if !extent.shared {
                    extent.run(*start).zero()?;
                }
            }
        }
        // The range itself may reach beyond what can be mapped.
        let last = self.extents.range(start..end).next_back();
        if let (Some(first), Some((_, last))) = (starts.first(), last) {
            self.space.unmap(*first, last.end - first)?;
        }
        for start in starts {
            if let Some(extent) = self.extents.remove(&start)
                && !extent.shared
            {
                self.frames.give_back(extent.run(start), zero);
            }
        }
        Ok(())
    }

    /// Sets what programs may do with pages that are one extent or a part of one.
    fn protect_extent(
        &mut self,
        start: u64,
        end: u64,
        protection: Protection,
    ) -> Result<(), Failure> {
        let shared = self.extent(start).is_some_and(|(_, extent)| extent.shared);
        let protection = Protection {
            write: protection.write && !shared,
            ..protection
        };
        Ok(self.space.protect(start, end - start, protection)?)
    }

    /// Lets go of the files that are mapped, once the program does not run any more.
    pub fn forget_files(&mut self) {
        self.areas.forget_files();
    }

    /// Ends it. Nothing of it is seen by anybody then, or nobody ever gets its pages.
    pub fn release(mut self) -> Result<(), microvm_ring3::Error> {
        self.release_space()
    }

    fn release_space(&mut self) -> Result<(), microvm_ring3::Error> {
        if std::mem::replace(&mut self.released, true) {
            return Ok(());
        }
        self.frames.zero();
        let released = self.space.release();
        if released.is_err() {
            self.frames.leak();
        }
        self.extents.clear();
        released
    }
}

impl Drop for ProgramMemory {
    fn drop(&mut self) {
        // The pages are leaked where it fails; there is nobody to tell.
        let _ = self.release_space();
    }
}

impl ProgramMemory {
    /// The answer to a call, of which one error is for want of memory; what the platform says is kept, to end the run.
    fn answer<T>(&mut self, result: Result<T, Failure>, limit: Errno) -> Result<T, Errno> {
        result.map_err(|failure| {
            if let Failure::Platform(error) = failure {
                self.broken = Some(error);
            }
            limit
        })
    }
}
