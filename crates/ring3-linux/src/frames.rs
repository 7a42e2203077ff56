//! Pages of memory: a pool that all sandboxes of a machine take blocks from, and what one of them
//! does with its blocks.
//!
//! A memory of the platform is a slot of KVM, which is slow to add and slower to remove. So there
//! are few large ones, and sandboxes get parts. A block is zeroed before it goes back, so that no
//! sandbox sees what another left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use microvm_ring3::{Error, Memory, Platform};

use crate::budget::{Budget, Charge, Exceeded};

pub const PAGE: u64 = 4096;
/// The same, for arrays.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of a block, and of the memory that blocks are parts of.
const BLOCK: u64 = 1 << 20;
const CHUNK: u64 = 64 << 20;
/// Pages of a block.
pub const BLOCK_PAGES: u64 = BLOCK / PAGE;
/// Memories without any block in use that are kept.
const SPARE_CHUNKS: usize = 1;

/// Locks, whatever happened to whoever held it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Blocks for the sandboxes of a machine.
#[derive(Debug)]
pub struct Pool {
    platform: Arc<dyn Platform>,
    chunks: Mutex<Chunks>,
}

#[derive(Debug, Default)]
struct Chunks {
    by_number: BTreeMap<u64, Chunk>,
    next: u64,
}

#[derive(Debug)]
struct Chunk {
    memory: Arc<Memory>,
    /// Offsets of blocks that nobody has.
    free: Vec<u64>,
}

impl Pool {
    pub fn new(platform: Arc<dyn Platform>) -> Self {
        Self {
            platform,
            chunks: Mutex::default(),
        }
    }

    fn take(&self) -> Result<Block, Error> {
        let mut chunks = lock(&self.chunks);
        for (number, chunk) in &mut chunks.by_number {
            if let Some(offset) = chunk.free.pop() {
                return Ok(Block::new(*number, &chunk.memory, offset));
            }
        }
        let memory = self.platform.new_memory(CHUNK)?;
        let number = chunks.next;
        chunks.next += 1;
        let block = Block::new(number, &memory, 0);
        let free = (1..CHUNK / BLOCK).rev().map(|index| index * BLOCK);
        let free = free.collect();
        chunks.by_number.insert(number, Chunk { memory, free });
        Ok(block)
    }

    fn give_back(&self, blocks: Vec<Block>) {
        let mut unused = Vec::new();
        let mut chunks = lock(&self.chunks);
        for block in blocks {
            if let Some(chunk) = chunks.by_number.get_mut(&block.chunk) {
                chunk.free.push(block.offset);
            }
        }
        let whole = CHUNK / BLOCK;
        let empty = chunks.by_number.iter().rev();
        let empty = empty.filter(|(_, chunk)| chunk.free.len() as u64 == whole);
        let empty: Vec<u64> = empty
            .map(|(number, _)| *number)
            .skip(SPARE_CHUNKS)
            .collect();
        for number in empty {
            unused.extend(chunks.by_number.remove(&number));
        }
        drop(chunks);
        // Slow, and nobody else should wait for it.
        drop(unused);
    }
}

/// A block of a sandbox.
#[derive(Debug)]
struct Block {
    chunk: u64,
    memory: Arc<Memory>,
    offset: u64,
    /// Pages from the start that were given out at least once.
    used: u64,
}

impl Block {
    fn new(chunk: u64, memory: &Arc<Memory>, offset: u64) -> Self {
        Self {
            chunk,
            memory: Arc::clone(memory),
            offset,
            used: 0,
        }
    }

    fn zero(&self) -> Result<(), Error> {
        self.memory.zero(self.offset, self.used * PAGE)
    }
}

/// Pages that follow each other.
#[derive(Clone, Debug)]
pub struct Run {
    pub memory: Arc<Memory>,
    /// Bytes from the memory's start.
    pub offset: u64,
    pub pages: u64,
}

impl Run {
    /// Makes all of it zeros.
    pub fn zero(&self) -> Result<(), Error> {
        self.memory.zero(self.offset, self.pages * PAGE)
    }
}

/// The pages of one sandbox.
#[derive(Debug)]
pub struct Frames {
    pool: Arc<Pool>,
    blocks: Vec<Block>,
    /// Pages that were given back, and whether they are zeros already.
    free: Vec<(Run, bool)>,
    /// Whether all pages are zeros, and nobody has any.
    zeroed: bool,
    /// All pages that were ever given out: the host has them still.
    charge: Charge,
}

/// Why there are no more pages.
#[derive(Debug)]
pub enum NoFrames {
    Limit,
    Platform(Error),
}

impl From<Exceeded> for NoFrames {
    fn from(_: Exceeded) -> Self {
        Self::Limit
    }
}

impl From<Error> for NoFrames {
    fn from(error: Error) -> Self {
        Self::Platform(error)
    }
}

impl Frames {
    pub fn new(pool: &Arc<Pool>, budget: &Budget) -> Result<Self, Exceeded> {
        Ok(Self {
            pool: Arc::clone(pool),
            blocks: Vec::new(),
            free: Vec::new(),
            zeroed: false,
            charge: Charge::new(budget, 0)?,
        })
    }

    /// Counts all pages against another budget, or leaves them where they are.
    pub fn charge_to(&mut self, budget: &Budget) -> Result<(), Exceeded> {
        self.charge = Charge::new(budget, self.charge.bytes())?;
        Ok(())
    }

    /// How many pages nobody uses.
    pub fn unused(&self) -> u64 {
        self.free.iter().map(|(run, _)| run.pages).sum()
    }

    /// How many blocks it has.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Takes zeroed pages, at least one and at most `pages`.
    pub fn take(&mut self, pages: u64) -> Result<Run, NoFrames> {
        self.zeroed = false;
        let pages = pages.clamp(1, BLOCK_PAGES);
        if let Some((mut run, zeros)) = self.free.pop() {
            if run.pages > pages {
                let rest = Run {
                    memory: Arc::clone(&run.memory),
                    offset: run.offset + pages * PAGE,
                    pages: run.pages - pages,
                };
                self.free.push((rest, zeros));
                run.pages = pages;
            }
            if !zeros {
                run.zero()?;
            }
            return Ok(run);
        }
        let full = |block: &Block| block.used == BLOCK_PAGES;
        if self.blocks.last().is_none_or(full) {
            self.blocks.push(self.pool.take()?);
        }
        let Some(block) = self.blocks.last_mut() else {
            return Err(Error::NoRoom { length: BLOCK }.into());
        };
        let mut pages = pages.min(BLOCK_PAGES - block.used);
        let charged = self.charge.bytes();
        if self.charge.set(charged + pages * PAGE).is_err() {
            pages = 1;
            self.charge.set(charged + PAGE)?;
        }
        let run = Run {
            memory: Arc::clone(&block.memory),
            offset: block.offset + block.used * PAGE,
            pages,
        };
        block.used += run.pages;
        Ok(run)
    }

    /// Gives pages back that nobody sees any more, and says whether they are zeros.
    pub fn give_back(&mut self, run: Run, zeros: bool) {
        self.free.push((run, zeros));
    }

    /// Makes all pages zeros, of a program that does not run any more. Done while they are mapped
    /// in this process, that is quicker than after they were taken away.
    pub fn zero(&mut self) {
        self.zeroed = self.blocks.iter().all(|block| block.zero().is_ok());
    }

    /// Gives everything back to the machine. Nothing may be mapped anywhere.
    pub fn clear(&mut self) {
        self.free.clear();
        // It becomes less, for which there is room.
        let _ = self.charge.set(0);
        let mut blocks = std::mem::take(&mut self.blocks);
        // What cannot be zeroed nobody gets: its offset is never free again.
        if !self.zeroed {
            blocks.retain(|block| block.zero().is_ok());
        }
        self.zeroed = false;
        if !blocks.is_empty() {
            self.pool.give_back(blocks);
        }
    }

    /// Sees that nobody ever gets its pages: somebody may still see them.
    pub fn leak(&mut self) {
        self.free.clear();
        std::mem::forget(std::mem::take(&mut self.blocks));
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.clear();
    }
}
