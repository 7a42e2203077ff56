//! Pages that come when they are touched.

use std::sync::Arc;

use microvm_ring3::Access;

use super::areas::{Area, Kind};
use super::{Extent, Failure, ProgramMemory};
use crate::frames::{BLOCK_PAGES, PAGE, PAGE_BYTES, Run};

/// What touching an address comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// The page is there now.
    Mapped,
    /// It was there already, and may be used so.
    There,
    /// Nothing was asked for at this address.
    Nothing,
    /// It may not be used so.
    Forbidden,
    /// The file that is mapped there has become shorter, or cannot be read.
    Gone,
}

/// Whether an area may be used so. Processors know no page that can be written or executed only.
fn allows(area: &Area, access: Access) -> bool {
    let protection = area.protection;
    match access {
        Access::Read => protection.read || protection.write || protection.execute,
        Access::Write => protection.write,
        Access::Execute => protection.execute,
    }
}

impl ProgramMemory {
    /// Makes the page at an address usable, where the program may use it so.
    pub fn touch(&mut self, address: u64, access: Access) -> Result<Touch, Failure> {
        let Some((start, area)) = self.areas.at(address) else {
            return Ok(Touch::Nothing);
        };
        if !allows(area, access) {
            return Ok(Touch::Forbidden);
        }
        if self.extent(address).is_some() {
            return Ok(Touch::There);
        }
        let area = area.clone();
        let run = self.take_frames(&area, address, start)?;
        let run = match self.fill(&area, &run)? {
            0 => {
                self.frames.give_back(run.frames, false);
                return Ok(Touch::Gone);
            }
            pages => self.keep(run, pages),
        };
        let extent = Extent {
            end: run.start + run.frames.pages * PAGE,
            memory: Arc::clone(&run.frames.memory),
            offset: run.frames.offset,
            shared: false,
        };
        if let Err(failure) = self.map_extent(run.start, extent, area.protection) {
            self.frames.give_back(run.frames, false);
            return Err(failure);
        }
        if let Some(area) = self.areas.at_mut(address) {
            area.pages = (area.pages * 2).min(BLOCK_PAGES);
        }
        Ok(Touch::Mapped)
    }

    /// Takes pages for the gap around an address.
    fn take_frames(&mut self, area: &Area, address: u64, start: u64) -> Result<Placed, Failure> {
        let page = address - address % PAGE;
        let wanted = area.pages * PAGE;
        let down = match area.kind {
            Kind::Stack => true,
            // The program goes from above to below.
            Kind::Anonymous => self.extent(page + PAGE).is_some(),
            _ => false,
        };
        let (low, high) = if down {
            let before = self.extents.range(..page).next_back();
            let floor = before.map_or(start, |(_, extent)| extent.end.max(start));
            (page.saturating_sub(wanted - PAGE).max(floor), page + PAGE)
        } else {
            let behind = self.extents.range(page..).next();
            let ceiling = behind.map_or(area.end, |(start, _)| (*start).min(area.end));
            (page, page.saturating_add(wanted).min(ceiling))
        };
        let pages = ((high - low) / PAGE).max(1);
        let frames = self.frames.take(pages)?;
        let start = if down {
            page + PAGE - frames.pages * PAGE
        } else {
            page
        };
        Ok(Placed { start, frames })
    }

    /// Keeps so many pages of a run.
    fn keep(&mut self, mut run: Placed, pages: u64) -> Placed {
        if pages < run.frames.pages {
            self.frames.give_back(
                Run {
                    memory: Arc::clone(&run.frames.memory),
                    offset: run.frames.offset + pages * PAGE,
                    pages: run.frames.pages - pages,
                },
                false,
            );
            run.frames.pages = pages;
        }
        run
    }

    /// Writes what is in pages at first. Returns how many there are: a file may end before.
    fn fill(&mut self, area: &Area, run: &Placed) -> Result<u64, Failure> {
        let Run {
            memory,
            offset,
            pages,
        } = &run.frames;
        match &area.kind {
            Kind::Anonymous | Kind::Stack => {}
            Kind::Image => self.image.copy(run.start, memory, *offset, pages * PAGE)?,
            Kind::File { backing, base, .. } => {
                let mut page = [0; PAGE_BYTES];
                for index in 0..*pages {
                    let at = index * PAGE;
                    let from = run.start.wrapping_add(*base).wrapping_add(at);
                    let Ok(read @ 1..) = backing.read_at(from, &mut page) else {
                        return Ok(index);
                    };
                    page.get_mut(read..).unwrap_or_default().fill(0);
                    memory.write(offset + at, &page)?;
                }
            }
        }
        Ok(*pages)
    }
}

/// Pages, and where they are to be.
struct Placed {
    start: u64,
    frames: Run,
}
