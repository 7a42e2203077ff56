//! Pages that hold guest page tables: where they come from, and when they may be used again.
//!
//! Where KVM shadows page tables it keeps what it derived from a page for as long as it likes. A
//! page that was a table once may therefore become another table only after everything derived
//! from it is gone: pages of tables that are done with wait until there are many, then one memory
//! slot is removed, upon which KVM drops all that it has derived.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use microvm_kvm::{MemoryRegion, PAGE_SIZE, VirtualMachine};
use vm_memory::Bytes;

use crate::error::Error;
use crate::physical::{PhysicalSpace, Place};

/// Pages that are taken from the host at a time.
const CHUNK_PAGES: u64 = 256;
/// Used pages that are worth the removal of a slot.
const WORTH_A_ZAP: usize = 256;

/// [`PAGE_SIZE`], for arrays.
const PAGE_BYTES: usize = 4096;

/// Entries of a table.
pub const ENTRIES: u64 = 512;

/// All pages of a machine that are or were page tables.
#[derive(Debug)]
pub struct TablePages {
    vm: VirtualMachine,
    physical: Arc<Mutex<PhysicalSpace>>,
    /// Whether pages are ever used again.
    recycle: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<TablePage>,
    used: Vec<TablePage>,
    /// The slot that is removed to make KVM forget, and its memory.
    zap: Option<(Place, Arc<MemoryRegion>)>,
}

/// One page of a table.
#[derive(Clone, Debug)]
pub struct TablePage {
    region: Arc<MemoryRegion>,
    offset: u64,
    /// Its guest physical address.
    pub address: u64,
}

impl TablePage {
    /// The page at `offset` of `region`, which the guest has at `start`.
    pub fn new(region: Arc<MemoryRegion>, start: u64, offset: u64) -> Self {
        Self {
            region,
            offset,
            address: start + offset,
        }
    }

    /// Writes entry `index`, of [`ENTRIES`].
    pub fn set(&self, index: u64, entry: u64) {
        let offset = self.offset + index % ENTRIES * 8;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let memory = self.region.as_volatile_slice();
        // The offset is inside by construction, and aligned.
        let stored = memory.store(entry, offset, Ordering::Release);
        debug_assert!(stored.is_ok());
    }

    fn clear(&self) {
        let cleared = self.region.write(self.offset, &[0; PAGE_BYTES]);
        debug_assert!(cleared.is_ok());
    }
}

impl TablePages {
    pub fn new(vm: VirtualMachine, physical: Arc<Mutex<PhysicalSpace>>, recycle: bool) -> Self {
        Self {
            vm,
            physical,
            recycle,
            state: Mutex::default(),
        }
    }

    /// A page of zeros.
    pub fn take(&self) -> Result<TablePage, Error> {
        let mut state = self.lock();
        if state.free.is_empty() && self.recycle && state.used.len() >= WORTH_A_ZAP {
            self.zap(&mut state)?;
        }
        if state.free.is_empty() {
            let length = CHUNK_PAGES * PAGE_SIZE;
            let (place, region) = self.new_slot(length)?;
            let pages = (0..CHUNK_PAGES).rev();
            state.free.extend(
                pages.map(|page| {
                    TablePage::new(Arc::clone(&region), place.address, page * PAGE_SIZE)
                }),
            );
        }
        let page = state
            .free
            .pop()
            .ok_or(Error::NoRoom { length: PAGE_SIZE })?;
        page.clear();
        Ok(page)
    }

    /// Gives pages back that no vCPU uses as its tables any more.
    pub fn give_back(&self, pages: impl IntoIterator<Item = TablePage>) {
        self.lock().used.extend(pages);
    }

    /// Makes the pages that were given back free at once. For the self-test.
    pub fn zap_now(&self) -> Result<(), Error> {
        self.zap(&mut self.lock())
    }

    fn zap(&self, state: &mut State) -> Result<(), Error> {
        let doing = "Dropping what the host derived from old page tables";
        if let Some((place, region)) = state.zap.take() {
            // Whatever happens in between, the place stays ours.
            let (slot, address) = (place.slot, place.address);
            state.zap = Some((place, Arc::clone(&region)));
            self.vm
                .set_guest_memory_region(slot, 0, address, region)
                .map_err(Error::kvm(doing))?;
        } else {
            state.zap = Some(self.new_slot(PAGE_SIZE)?);
        }
        if let Some((place, _)) = &state.zap {
            self.vm
                .remove_guest_memory_region(place.slot)
                .map_err(Error::kvm(doing))?;
        }
        let used = std::mem::take(&mut state.used);
        state.free.extend(used);
        Ok(())
    }

    fn new_slot(&self, length: u64) -> Result<(Place, Arc<MemoryRegion>), Error> {
        let mut physical = lock(&self.physical);
        let place = physical.take(length).ok_or(Error::NoRoom { length })?;
        let added = MemoryRegion::anonymous(length).and_then(|region| {
            let region = Arc::new(region);
            self.vm
                .set_guest_memory_region(place.slot, 0, place.address, Arc::clone(&region))?;
            Ok(region)
        });
        match added {
            Ok(region) => Ok((place, region)),
            Err(source) => {
                physical.give_back(place);
                Err(Error::kvm("Adding memory for page tables")(source))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Locks; nothing panics while one of this crate's locks is held.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
