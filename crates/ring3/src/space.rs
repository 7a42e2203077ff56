//! The page tables of an address space.
//!
//! A change of what is mapped already has two steps: all vCPUs that run in the space are made to
//! leave the guest, then the entries are changed and the host is made to forget what it derived
//! from the old ones. Done while a vCPU runs, the host might read an old entry before the change,
//! and act on it after it has forgotten the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use microvm_kvm::PAGE_SIZE;

use crate::error::Error;
use crate::gate::Gate;
use crate::kernel::KERNEL_ENTRY;
use crate::layout::LOWER_STUB;
use crate::machine::Parts;
use crate::page_tables::{ENTRIES, TablePage, TablePages, lock};
use crate::traits::SyscallEntry;

/// Present, writable, user, accessed, dirty.
const TABLE: u64 = 0x67;
/// Present, user, accessed, dirty.
const PAGE: u64 = 0x65;
const WRITABLE: u64 = 2;
const NO_EXECUTE: u64 = 1 << 63;
/// Bytes that a table of the lowest level maps.
const LEAF_BYTES: u64 = ENTRIES * PAGE_SIZE;

/// What programs may do with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protection {
    /// Whether it can be read. Processors know no memory that can be written or executed only:
    /// either of them makes it readable.
    pub read: bool,
    /// Whether it can be written.
    pub write: bool,
    /// Whether it can be executed.
    pub execute: bool,
}

impl Protection {
    /// No access.
    pub const NONE: Self = Self::new(false, false, false);
    /// Reading only.
    pub const READ: Self = Self::new(true, false, false);
    /// Reading and writing.
    pub const READ_WRITE: Self = Self::new(true, true, false);
    /// Reading and executing.
    pub const READ_EXECUTE: Self = Self::new(true, false, true);
    /// All of them.
    pub const ALL: Self = Self::new(true, true, true);

    const fn new(read: bool, write: bool, execute: bool) -> Self {
        Self {
            read,
            write,
            execute,
        }
    }

    /// The entry of a page table for the page at this address.
    fn entry(self, address: u64) -> u64 {
        if !(self.read || self.write || self.execute) {
            return 0;
        }
        let write = if self.write { WRITABLE } else { 0 };
        let execute = if self.execute { 0 } else { NO_EXECUTE };
        address | PAGE | write | execute
    }
}

/// Page tables that vCPUs can load. It is kept by those that have, and by its address space.
#[derive(Debug)]
pub struct Space {
    root: u64,
    tables: Mutex<Table>,
    pages: Arc<TablePages>,
    gate: Gate,
}

#[derive(Debug)]
struct Table {
    page: TablePage,
    /// Tables below; none at the lowest level.
    children: BTreeMap<u64, Table>,
}

impl Space {
    pub fn new(parts: &Parts) -> Result<Self, Error> {
        let page = parts.tables.take()?;
        page.set(KERNEL_ENTRY, parts.kernel.entry());
        let space = Self {
            root: page.address,
            tables: Mutex::new(Table {
                page,
                children: BTreeMap::new(),
            }),
            pages: Arc::clone(&parts.tables),
            gate: Gate::default(),
        };
        if parts.traits.syscall_entry == SyscallEntry::Ring3 {
            let stub = parts.kernel.lower_stub();
            space.set(LOWER_STUB, PAGE_SIZE, Some(stub), Protection::READ_EXECUTE)?;
        }
        Ok(space)
    }

    /// Value for CR3.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// How vCPUs enter it.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Writes the entries of a range: the pages from guest physical address `memory` on, or none.
    /// Tables that are needed for pages are made.
    pub fn set(
        &self,
        address: u64,
        length: u64,
        memory: Option<u64>,
        protection: Protection,
    ) -> Result<(), Error> {
        let mut tables = lock(&self.tables);
        let end = address + length;
        let mut next = address;
        while next < end {
            let stop = end.min((next / LEAF_BYTES + 1) * LEAF_BYTES);
            if let Some(leaf) = self.leaf(&mut tables, next, memory.is_some())? {
                for page in (next..stop).step_by(4096) {
                    let entry =
                        memory.map_or(0, |memory| protection.entry(memory + (page - address)));
                    leaf.page.set(page / PAGE_SIZE % ENTRIES, entry);
                }
            }
            next = stop;
        }
        Ok(())
    }

    /// The lowest table for an address.
    fn leaf<'tables>(
        &self,
        root: &'tables mut Table,
        address: u64,
        make: bool,
    ) -> Result<Option<&'tables mut Table>, Error> {
        let mut table = root;
        for shift in [39, 30, 21] {
            let index = address >> shift & (ENTRIES - 1);
            if !table.children.contains_key(&index) {
                if !make {
                    return Ok(None);
                }
                let page = self.pages.take()?;
                table.page.set(index, page.address | TABLE);
                let children = BTreeMap::new();
                table.children.insert(index, Table { page, children });
            }
            match table.children.get_mut(&index) {
                Some(child) => table = child,
                None => return Ok(None),
            }
        }
        Ok(Some(table))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let tables = self
            .tables
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let mut pages = vec![tables.page.clone()];
        let mut rest: Vec<Table> = std::mem::take(&mut tables.children).into_values().collect();
        while let Some(table) = rest.pop() {
            pages.push(table.page);
            rest.extend(table.children.into_values());
        }
        self.pages.give_back(pages);
    }
}
