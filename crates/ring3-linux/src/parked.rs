//! Memory of programs that no sandbox has any more, as it was before they ran. The next sandbox
//! that runs such a program takes it: what is mapped is mapped already, for the vCPUs as well.
//! To map it anew costs several times as much, and to take it away most of all, for the pages that
//! all sandboxes of a program share are taken away from all of them.

use std::sync::{Arc, Mutex};

use crate::budget::Budget;
use crate::frames::lock;
use crate::image::Image;
use crate::memory::ProgramMemory;

/// How many are kept. A reset bounds what each of them has.
const MOST: usize = 8;

/// The memories, the one that was put last at the end.
#[derive(Debug, Default)]
pub struct Parked {
    memories: Mutex<Vec<ProgramMemory>>,
}

impl Parked {
    /// Keeps a memory that is as it was before its program ran; the oldest goes for it.
    pub fn put(&self, memory: ProgramMemory) {
        let mut memories = lock(&self.memories);
        memories.push(memory);
        let oldest = (memories.len() > MOST).then(|| memories.remove(0));
        drop(memories);
        // Slow, and nobody else should wait for it.
        drop(oldest);
    }

    /// The newest of this program and with a stack of this size that the budget has room for; it
    /// is counted there from now on.
    pub fn take(&self, image: &Arc<Image>, stack: u64, budget: &Budget) -> Option<ProgramMemory> {
        let mut memories = lock(&self.memories);
        let fits = |memory: &ProgramMemory| {
            Arc::ptr_eq(memory.image(), image) && memory.stack_bytes() == stack
        };
        let index = memories.iter().rposition(fits)?;
        memories.get_mut(index)?.charge_to(budget).ok()?;
        Some(memories.remove(index))
    }

    /// The oldest, for somebody who needs the room.
    pub fn take_oldest(&self) -> Option<ProgramMemory> {
        let mut memories = lock(&self.memories);
        (!memories.is_empty()).then(|| memories.remove(0))
    }
}
