//! Guest RAM: one memfd, laid out around the hole for 32-bit MMIO.
//!
//! One file, so that a vhost-user device of another process needs a single descriptor; it is
//! sealed against shrinking, so that no peer can make this process fault by truncating it.

mod load;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Weak};

use microvm_kvm::{HugePages, guest_memory_file};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryRegion, GuestRegionMmap};

pub use load::LoadError;

use crate::arch::x86_64::layout;

/// The guest's memory as devices see it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// Size of the pages that back RAM when [`PageSize::Huge`] is asked for, in bytes.
pub const HUGE_PAGE: u64 = 2 << 20;

/// Why guest RAM cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The size does not fit this process's address space.
    #[error("Guest memory of {bytes} bytes is too large for this host")]
    TooLarge {
        /// The size that was asked for, in bytes.
        bytes: u64,
    },
    /// A system call on the backing file failed.
    #[error("Guest memory of {bytes} bytes: {operation} failed")]
    File {
        /// The size that was asked for, in bytes.
        bytes: u64,
        /// The system call.
        operation: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The file cannot be mapped; with huge pages mostly because too few are reserved.
    #[error("Guest memory of {bytes} bytes cannot be mapped")]
    Map {
        /// The size of the mapping that failed, in bytes.
        bytes: u64,
        /// Why.
        #[source]
        source: vm_memory::mmap::MmapRegionError,
    },
    /// The regions do not form a guest memory.
    #[error("Guest memory regions do not fit together")]
    Layout(#[source] vm_memory::GuestRegionCollectionError),
}

/// What backs guest RAM on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PageSize {
    /// The host's base pages (and transparent huge pages where the host allows them for memfds).
    #[default]
    Base,
    /// Reserved 2 MiB pages (hugetlbfs).
    Huge,
}

/// Guest RAM with the regions that become KVM memory slots.
#[derive(Debug)]
pub struct Ram {
    memory: Arc<GuestMemory>,
    regions: Vec<Arc<GuestRegionMmap<()>>>,
}

impl Ram {
    /// Makes `bytes` of zeroed RAM: up to 3 GiB from address 0, the rest from 4 GiB.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] when the host refuses the file or the mapping.
    pub fn new(bytes: u64, page_size: PageSize) -> Result<Self, MemoryError> {
        let file = Arc::new(create_file(bytes, page_size)?);
        let mut regions = Vec::with_capacity(2);
        let mut offset = 0;
        for (base, length) in ranges(bytes) {
            regions.push(map(&file, offset, base, length, page_size)?);
            offset += length;
        }
        let memory = GuestMemory::from_arc_regions(regions.clone()).map_err(MemoryError::Layout)?;
        Ok(Self {
            memory: Arc::new(memory),
            regions,
        })
    }

    /// The memory as devices and loaders see it.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The regions in the order of their addresses; each is one KVM memory slot.
    #[must_use]
    pub fn regions(&self) -> &[Arc<GuestRegionMmap<()>>] {
        &self.regions
    }

    /// The file behind all regions, for as long as they are there.
    #[must_use]
    pub fn file(&self) -> Weak<File> {
        let file = self.regions.first().and_then(|region| region.file_offset());
        file.map_or_else(Weak::new, |offset| Arc::downgrade(offset.arc()))
    }

    /// First address behind the RAM below 4 GiB.
    #[must_use]
    pub fn low_end(&self) -> u64 {
        self.regions.first().map_or(0, |region| region.len())
    }
}

/// What this host holds for a file of guest RAM, in bytes: pages that somebody used, in memory or
/// swapped out. The kernel counts them, so this costs one system call whatever the size.
#[must_use]
pub fn allocated_bytes(file: &File) -> u64 {
    /// The unit of `st_blocks`, whatever the pages' size (stat(2)).
    const BLOCK: u64 = 512;
    file.metadata()
        .map_or(0, |status| status.blocks().saturating_mul(BLOCK))
}

/// Address and length of each part of `bytes` of RAM.
pub fn ranges(bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let low = bytes.min(layout::MMIO_HOLE);
    [(0, low), (layout::RAM_ABOVE_4G, bytes - low)]
        .into_iter()
        .filter(|(_, length)| *length != 0)
}

fn create_file(bytes: u64, page_size: PageSize) -> Result<File, MemoryError> {
    let huge_pages = match page_size {
        PageSize::Base => HugePages::Off,
        PageSize::Huge => HugePages::TwoMebibytes,
    };
    guest_memory_file(c"microvm-ram", bytes, huge_pages).map_err(|error| MemoryError::File {
        bytes,
        operation: error.call(),
        source: io::Error::from_raw_os_error(error.errno()),
    })
}

fn map(
    file: &Arc<File>,
    offset: u64,
    base: u64,
    length: u64,
    page_size: PageSize,
) -> Result<Arc<GuestRegionMmap<()>>, MemoryError> {
    let too_large = || MemoryError::TooLarge { bytes: length };
    let size = usize::try_from(length).map_err(|_| too_large())?;
    // Huge pages are reserved now: a pool that is too small is an error here, not a bus error at
    // the first touch.
    let flags = match page_size {
        PageSize::Base => libc::MAP_SHARED | libc::MAP_NORESERVE,
        PageSize::Huge => libc::MAP_SHARED,
    };
    let mapping = MmapRegionBuilder::<()>::new(size)
        .with_file_offset(FileOffset::from_arc(Arc::clone(file), offset))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(flags)
        .with_hugetlbfs(page_size == PageSize::Huge)
        .build()
        .map_err(|source| MemoryError::Map {
            bytes: length,
            source,
        })?;
    // Advice only: no core dump of guest memory, huge pages where the host offers them.
    for advice in [libc::MADV_DONTDUMP, libc::MADV_HUGEPAGE] {
        // SAFETY: the range is the mapping just made; neither advice changes its contents.
        unsafe { libc::madvise(mapping.as_ptr().cast(), size, advice) };
    }
    GuestRegionMmap::new(mapping, GuestAddress(base))
        .map(Arc::new)
        .ok_or_else(too_large)
}

#[cfg(test)]
mod tests;
