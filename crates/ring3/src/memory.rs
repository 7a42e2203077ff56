//! Memory that can be mapped into address spaces.

use std::fs::File;
use std::sync::Arc;

use kvm_bindings::KVM_MEM_READONLY;
use microvm_kvm::{HugePages, MemoryRegion, PAGE_SIZE};

use crate::error::Error;
use crate::machine::Machine;
use crate::page_tables::lock;
use crate::physical::Place;

/// Memory of a machine that can be mapped into its address spaces, any part of it in any number of
/// places.
///
/// It takes one of KVM's memory slots (there are about 32,000 of them), and it takes KVM some time
/// to remove one: prefer one large memory to many small ones.
#[derive(Debug)]
pub struct Memory {
    machine: Arc<Machine>,
    region: Arc<MemoryRegion>,
    place: Place,
    writable: bool,
}

impl Memory {
    /// Zeroed memory of a memfd that nobody can shrink.
    pub(crate) fn anonymous(machine: Arc<Machine>, length: u64) -> Result<Self, Error> {
        let region =
            MemoryRegion::memfd(length, HugePages::Off).map_err(Error::kvm("Allocating memory"))?;
        Self::new(machine, region, true)
    }

    pub(crate) fn file(
        machine: Arc<Machine>,
        file: File,
        offset: u64,
        length: u64,
        writable: bool,
    ) -> Result<Self, Error> {
        let failed = Error::kvm("Mapping a file");
        let region = MemoryRegion::shared_file(file, offset, length, writable).map_err(failed)?;
        Self::new(machine, region, writable)
    }

    fn new(machine: Arc<Machine>, region: MemoryRegion, writable: bool) -> Result<Self, Error> {
        let length = region.length();
        let place = lock(&machine.physical)
            .take(length)
            .ok_or(Error::NoRoom { length })?;
        let region = Arc::new(region);
        let flags = if writable { 0 } else { KVM_MEM_READONLY };
        let added = machine.vm.set_guest_memory_region(
            place.slot,
            flags,
            place.address,
            Arc::clone(&region),
        );
        if let Err(source) = added {
            lock(&machine.physical).give_back(place);
            return Err(Error::kvm("Adding memory to the machine")(source));
        }
        Ok(Self {
            machine,
            region,
            place,
            writable,
        })
    }

    /// Its bytes; a multiple of 4 KiB.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.place.length
    }

    /// Whether it can be mapped for writing.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Copies `buffer.len()` bytes out, from `offset` (bytes from the start). Programs may change
    /// them meanwhile.
    ///
    /// # Errors
    ///
    /// Where they are not all inside, or the memory is that of a file: read the file instead, which
    /// may have become shorter.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.region
            .read(offset, buffer)
            .map_err(Error::kvm("Reading memory"))
    }

    /// Copies `bytes` in, to `offset` (bytes from the start).
    ///
    /// # Errors
    ///
    /// As for [`Memory::read`].
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.region
            .write(offset, bytes)
            .map_err(Error::kvm("Writing memory"))
    }

    /// Makes `length` bytes zeros, from `offset` (bytes from the start) on.
    ///
    /// # Errors
    ///
    /// As for [`Memory::read`].
    pub fn zero(&self, offset: u64, length: u64) -> Result<(), Error> {
        self.region
            .zero(offset, length)
            .map_err(Error::kvm("Writing memory"))
    }

    pub(crate) fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// Guest physical address of the byte at `offset`.
    pub(crate) fn address(&self, offset: u64) -> u64 {
        self.place.address + offset
    }

    /// Offset of a guest physical address, if it is inside.
    pub(crate) fn offset(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.place.address)?;
        (offset < self.place.length).then_some(offset)
    }

    /// Makes every vCPU forget where these pages are.
    pub(crate) fn forget_translations(&self, offset: u64, length: u64) -> Result<(), Error> {
        self.region
            .forget_translations(offset, length)
            .map_err(Error::kvm("Dropping translations"))
    }

    pub(crate) fn populate(&self, offset: u64, length: u64) -> Result<(), Error> {
        self.region
            .populate(offset, length)
            .map_err(Error::kvm("Allocating pages"))
    }

    /// Refuses a part that is not whole pages inside.
    pub(crate) fn check(&self, offset: u64, length: u64) -> Result<(), Error> {
        let inside = offset
            .checked_add(length)
            .is_some_and(|end| end <= self.length());
        if inside && offset.is_multiple_of(PAGE_SIZE) && length.is_multiple_of(PAGE_SIZE) {
            return Ok(());
        }
        Err(Error::Offset {
            offset,
            length,
            size: self.length(),
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Where the slot stays, so does its place: nothing else may ever be there.
        if self
            .machine
            .vm
            .remove_guest_memory_region(self.place.slot)
            .is_ok()
        {
            lock(&self.machine.physical).give_back(self.place);
        }
    }
}
