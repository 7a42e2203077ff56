//! Copying a file into guest RAM.
//!
//! `sendfile` puts the file's pages into the memfd inside of the kernel: no page fault for each
//! page, no zeroing of pages that are overwritten at once. That halves the time it takes to load a
//! kernel, or better.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryRegion, GuestRegionMmap};

use super::Ram;

/// Why a file could not be copied into guest RAM.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file ends before the part that was asked for does.
    #[error("File ends in the middle of what is to be loaded")]
    Ended,
    /// There is no RAM at the destination.
    #[error("{length} bytes at {address:#x} are not all RAM")]
    NoRam {
        /// Guest physical address.
        address: u64,
        /// Length in bytes.
        length: u64,
    },
    /// A system call failed.
    #[error("File cannot be copied to guest memory")]
    Copy(#[source] io::Error),
    /// The copy through the mapping failed.
    #[error("File cannot be copied to guest memory")]
    Memory(#[from] GuestMemoryError),
}

impl Ram {
    /// Copies `length` bytes of `file` from `offset` to guest address `address`.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; some of the bytes may have been copied then.
    pub fn load(
        &self,
        file: &File,
        offset: u64,
        length: u64,
        address: u64,
    ) -> Result<(), LoadError> {
        let no_ram = LoadError::NoRam { address, length };
        let region = self.regions().iter().find(|region| {
            let start = region.start_addr().0;
            address >= start
                && address
                    .checked_add(length)
                    .is_some_and(|end| end <= start + region.len())
        });
        let region = region.ok_or(no_ram)?;
        let copied = send(file, offset, length, region, address)?;
        if copied < length {
            self.read(file, offset + copied, length - copied, address + copied)?;
        }
        Ok(())
    }

    /// The way through the mapping, for what `sendfile` did not take.
    fn read(
        &self,
        mut file: &File,
        offset: u64,
        length: u64,
        address: u64,
    ) -> Result<(), LoadError> {
        file.seek(SeekFrom::Start(offset))
            .map_err(LoadError::Copy)?;
        let size = usize::try_from(length).map_err(|_| LoadError::NoRam { address, length })?;
        self.memory()
            .read_exact_volatile_from(GuestAddress(address), &mut file, size)?;
        Ok(())
    }
}

/// Copies as much as `sendfile` takes; returns the number of bytes. Not all files can be sent, and
/// huge pages cannot be sent to.
fn send(
    file: &File,
    offset: u64,
    length: u64,
    region: &GuestRegionMmap<()>,
    address: u64,
) -> Result<u64, LoadError> {
    let Some(backing) = region.file_offset() else {
        return Ok(0);
    };
    let mut ram = backing.file();
    // Nobody else uses the position of this file: everybody maps it.
    let position = backing.start() + (address - region.start_addr().0);
    ram.seek(SeekFrom::Start(position))
        .map_err(LoadError::Copy)?;
    let mut from = libc::off_t::try_from(offset).map_err(|_| LoadError::Ended)?;
    let mut copied = 0;
    while copied < length {
        let count = usize::try_from(length - copied).unwrap_or(usize::MAX);
        // SAFETY: the kernel writes to `from` only, which outlives the call; both descriptors are
        // open. What it writes to the memfd is guest memory, which holds no Rust values.
        let sent =
            unsafe { libc::sendfile(ram.as_raw_fd(), file.as_raw_fd(), &raw mut from, count) };
        match u64::try_from(sent) {
            Ok(0) => return Err(LoadError::Ended),
            Ok(sent) => copied += sent,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error if error.kind() == io::ErrorKind::StorageFull => {
                    return Err(LoadError::Copy(error));
                }
                // The other way will do, or tell the reason.
                _ => break,
            },
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::memory::PageSize;

    const MIB: u64 = 1 << 20;

    fn file(length: usize) -> (File, Vec<u8>) {
        let bytes: Vec<u8> = (0..length).map(|n| (n / 3) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        (file, bytes)
    }

    #[test]
    fn any_part_of_a_file_lands_at_its_address_and_nothing_around_it_changes() {
        let ram = Ram::new(16 * MIB, PageSize::Base).unwrap();
        let (file, bytes) = file(300_000);
        for (offset, length, address) in [
            (0u64, 300_000u64, MIB),
            (4096, 8192, 2 * MIB),
            (17, 5000, 3 * MIB + 123),
            (299_999, 1, 16 * MIB - 1),
            (0, 0, MIB),
        ] {
            ram.load(&file, offset, length, address).unwrap();
            let mut loaded = vec![0; length as usize + 1];
            let at = GuestAddress(address - 1);
            ram.memory().read_slice(&mut loaded, at).unwrap();
            assert_eq!(loaded[0], 0);
            assert!(loaded[1..] == bytes[offset as usize..(offset + length) as usize]);
        }
    }

    #[test]
    fn a_file_that_cannot_be_sent_is_read() {
        let ram = Ram::new(16 * MIB, PageSize::Base).unwrap();
        let (file, bytes) = file(10_000);
        ram.read(&file, 100, 9_900, MIB).unwrap();
        let mut loaded = vec![0; 9_900];
        ram.memory()
            .read_slice(&mut loaded, GuestAddress(MIB))
            .unwrap();
        assert!(loaded == bytes[100..]);
    }

    #[test]
    fn a_file_that_is_too_short_or_a_place_that_is_no_ram_is_an_error() {
        let ram = Ram::new(16 * MIB, PageSize::Base).unwrap();
        let (file, _) = file(10_000);
        assert!(matches!(
            ram.load(&file, 0, 10_001, MIB),
            Err(LoadError::Ended)
        ));
        for (length, address) in [(2, 16 * MIB - 1), (1, u64::MAX), (u64::MAX, MIB)] {
            assert!(matches!(
                ram.load(&file, 0, length, address),
                Err(LoadError::NoRam { .. })
            ));
        }
    }
}
